"""Ours beside multiprocessing, in one run."""
