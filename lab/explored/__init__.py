"""The explored place: the processes of a program as threads of which one runs at a time, in every order there is.

Whatever a process does to something shared is an operation; before each one an explorer decides whose is next. A program
runs from its start again and again, each time in another order, until all orders are tried that can make a difference
(``search``) or as many as one wants, drawn by a seed. Time is virtual. A schedule that was found is data (``schedule``), and
can be forced on the real places (``forced``). The modules that have the names of ``multiprocessing``'s are the place itself.

What is not explored: globals and whatever else is no primitive of the context. Threads of a script's own are refused.
"""
