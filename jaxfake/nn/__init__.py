"""Layers and convolutions that networks are built of."""
