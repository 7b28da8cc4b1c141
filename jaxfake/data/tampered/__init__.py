"""Radiographs with a region altered: lesions put in and taken out."""
