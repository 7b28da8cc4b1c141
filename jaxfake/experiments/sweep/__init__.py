"""A configuration run many times, some fields changed."""
