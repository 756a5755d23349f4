"""``producer course``: for those who teach; a folder for each student, and all that comes back, graded.

    enrolled.py    what a student's folder says of itself: the manifest, ``course.json``
    register.py    what the class's folder says: ``class.json``; who is in it, and whose number is which
    making.py      ``course new``: the folders
    walls.py       a program behind walls: namespaces, a file system of its own, limits
    cell.py        one answer behind them, watched from outside; inside.py: what runs there and grades
    results.py     verdicts, in the form of exercism's test runners
    submitted.py   what a student has handed in, read without trusting it
    grading.py     ``course grade``: all of them; showing.py: in words

Nothing here knows any exercise or lesson.
"""
