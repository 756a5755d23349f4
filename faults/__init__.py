"""Faults by the thousand: what takes too long for the tests. ``make faults``; each prints the seed that repeats it."""
