"""Experiments: configuration -> ordinary runs -> one result; no training."""
