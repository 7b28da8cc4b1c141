"""What python -m jaxfake.bench measures: our programs beside PyTorch's.

Each side of a case runs in a process of its own, so that neither pays for the
other's threads and memory. PyTorch is imported in its processes alone.
"""
