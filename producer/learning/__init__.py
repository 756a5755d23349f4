"""``producer learn``: a lesson's text, programs and answers (``course/``), made into something that asks first.

A lesson has three steps: run it, break it, mend it. In each, a program is shown, a prediction asked for and kept on disk, the
program run in the places there are, and the prediction set beside what was printed. Nothing here knows any lesson.
"""
