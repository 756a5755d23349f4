"""A program's source: which files are its own, what ``import multiprocessing`` means to it, how hosts get it.

It imports lab.store; cluster, mapping, worker and producer import it.
"""
