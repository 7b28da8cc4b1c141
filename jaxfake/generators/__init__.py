"""How generators learn and sample: losses, state, step, evaluation."""
