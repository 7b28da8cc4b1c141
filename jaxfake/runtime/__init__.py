"""The machine: compiler, devices, processes, files, progress."""
