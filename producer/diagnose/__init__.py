"""``producer diagnose``: a script read and run, and the confusions of the course that it has, each with its line.

A script is read in two steps. First what each name may stand for (``things``: which lock, queue, or function, however it was
handed on). Then what each of its processes and threads does, in order, with what it holds meanwhile (``walk``). The
confusions are questions to that. Then it is run within a time (``running``), and what is seen there is added.
"""
