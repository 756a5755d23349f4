"""Lost update: whoever writes has read since the last write; nobody keeps the others out for longer than one addition."""

from producer.exercise.claims import (
    Fault,
    Note,
    all_at_once,
    calls,
    each_does,
    lost_writes,
    never_by_main,
    printed_is_read,
    shared,
)


def small(chance):
    return [("2", "2"), ("3", "1"), ("2", str(chance.randint(3, 4)))]


def large(chance, place):
    return str(chance.randint(4, 5)), str(chance.randint(20, 30))


def expected(args):
    return str(int(args[0]) * int(args[1]))


def claims(history, args):
    workers, times = int(args[0]), int(args[1])
    yield from lost_writes(history)
    yield from kept_others_out(history)
    yield from all_at_once(history)
    # an Array has a number for each worker, added up in the end
    kind = "Value" if history.any("write", kind="Value") else "Array"
    yield from never_by_main(history, "write", kind=kind, what="writes the counter")
    counter = shared(history, kind)
    # what is done to a manager's is not in the trace of a real place, and was seen when it was explored
    unseen = not history.ordered and not counter and calls(history.source, "Manager")
    least = 0 if unseen else times
    yield from each_does(history, workers, least, "write", kind=kind, on=counter, what="adds to the counter")
    if not unseen:
        yield from printed_is_read(history, counter, expected(args))


def kept_others_out(history):
    """A worker that writes twice with the same lock, and does not let go of it between."""
    wrote = {}
    for op in history.ops:
        if op.does == "release":
            wrote.pop(op.worker, None)
        elif op.does == "write" and history.ordered and history.holding(op):
            if op.worker in wrote:
                held = ", ".join(history.holding(op))
                yield Fault(
                    "keeps",
                    f"{op.worker} adds again and has not let go of {held} since it added before",
                    op.line,
                    op.at,
                )
            wrote[op.worker] = op


def some_with_a_lock(history):
    """Whether some of the writes are made with a lock held, and some with none."""
    return len({bool(history.holding(op)) for op in history.of("write", kind="Value", others=True)}) == 2


def both_let_in(history, fault):
    """Whether who destroys and who is destroyed have both been let in, by the same semaphore."""
    inside = {}
    for op in history.of("acquire", "release", kind="Semaphore"):
        inside[op.on] = inside.get(op.on, 0) + (1 if op.does == "acquire" else -1)
        if inside[op.on] > 1:
            return True
    return False


NOTES = (
    Note(
        "one after the other",
        lambda history, fault: fault.name == "in a row",
        "The count is right since there is never more than one worker. Start all, then wait for all.",
    ),
    Note(
        "a lock for each process",
        lambda history, fault: fault.name == "lost write" and len({op.on for op in history.ops if op.took}) > 1,
        "Each worker has a lock of its own, which nobody else ever asks for. Make one, in the main"
        " program, and hand it to all.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "lost write" and history.any("sleep"),
        "A sleep orders nothing: it makes the wrong order rarer, and the machine chooses how rare. Somebody"
        " has to be kept out.",
    ),
    Note(
        "past the lock",
        lambda history, fault: fault.name == "lost write" and some_with_a_lock(history),
        "Some additions are made with the lock, and some without it. A lock keeps out only those who ask for it,"
        " so every way to the counter has to.",
    ),
    Note(
        "two are let in",
        lambda history, fault: fault.name == "lost write" and both_let_in(history, fault),
        "The semaphore lets more than one in at a time. One must be alone between the read and the write: begin"
        " with 1.",
    ),
    Note(
        "an event",
        lambda history, fault: fault.name == "lost write" and history.any("clear"),
        "An Event says that something is so, to all at once. Between its wait() and its clear() others come through"
        " as well; a lock lets in one.",
    ),
    Note(
        "only the write",
        lambda history, fault: fault.name == "lost write" and history.any("acquire"),
        "There is a lock, but not from before the read until after the write: two workers still read the same number.",
    ),
    Note(
        "around everything",
        lambda history, fault: fault.name == "keeps",
        "The count is right, and the workers work one after the other: the lock is held from the first"
        " addition to the last."
        " Hold it for one addition at a time.",
    ),
    Note(
        "no lock",
        lambda history, fault: fault.name == "lost write" and not calls(history.source, "acquire", "get_lock", "Lock"),
        "Both have read the same number, and the second one writes as if the first had never been. Nothing"
        " keeps them apart yet.",
    ),
)
