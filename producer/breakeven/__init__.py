"""``producer breakeven``: from which length of an item on is it worth leaving the process, or the host?

probe    what things cost in a place, measured
model    what follows from that
trial    a function, run in each place, beside what the model says
"""
