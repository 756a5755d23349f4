"""Crosshost beside other libraries on the same work, in one run: ``python -m benchmarks.peers``.

Each library is installed into an environment of its own, in the versions that ``peers`` names, and runs in an interpreter of
its own with two workers on this machine. Rounds go through all of them in turns, so that a noisy machine disturbs all alike;
what is printed are medians, and the lowest and the highest of the rounds. Read the ratios.

``peers`` has a class for each library: the way its own documentation calls a function on many items, and on one. ``works`` is
what they compute, and how it is measured. ``one`` is the interpreter of one library, ``__main__`` the command.
"""
