"""One run that learns step by step: loop, checkpoints, its folder."""
