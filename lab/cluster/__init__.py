"""The context across hosts. Its modules are named like those of ``multiprocessing``, to be read side by side.

It imports lab.store, lab.fleet and lab.program; the concepts, worker and producer import it.
"""
