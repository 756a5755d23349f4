"""A context around another one, which records what happens on the other one's primitives, in the same words in every place.

``Tracing(ctx)`` is such a context for the time of a ``with`` block. What it makes works as what the other context makes, is
of the same use to a program, and says what is done with it. Nothing else in the lab knows of it.

    context.py    the context and the session; recorder.py: what one process has seen, and how it is handed in
    synchronize.py queues.py shared.py process.py pool.py    one wrapper a noun, around any place's
    clock.py      the clocks of several hosts
    merge.py      the records of all processes become one trace; events.py: its words; file.py: as it lies on the disk
    script.py     a user's script, and its children, traced as they are
"""
