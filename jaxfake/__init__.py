"""Chest X-ray deepfakes: made, measured and caught, in JAX and Flax."""

__version__ = "0.1.0"
