"""The context across hosts. Its modules are named like those of ``multiprocessing``, to be read side by side."""
