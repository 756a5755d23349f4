"""``producer exercise``: a file to mend (``exercises/NAME``), and what grades it: its history, not its last value.

    exercise.py   an exercise as it lies on the disk
    history.py    what a run did, in the same words whether it was explored or traced on a real place
    claims.py     what may be claimed of a history, and what went wrong where it does not hold
    exploring.py  graded in every interleaving; placing.py: graded where it really runs
    checking.py   both, one after the other; showing.py: in words

Nothing here knows any exercise: what is claimed of one, and what is said of the usual wrong answers, is in its ``grader.py``.
"""
