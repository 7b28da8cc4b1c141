"""A family and a source as a user might add them: see test_contracts.py."""
