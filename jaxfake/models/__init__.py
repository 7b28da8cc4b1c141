"""Networks: pure Linen, arrays in, arrays out; no loss, no optimiser."""
