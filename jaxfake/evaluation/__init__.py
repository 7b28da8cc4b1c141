"""What results say: figures, distances, calibration, pictures, pages."""
