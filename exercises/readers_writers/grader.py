"""Readers and writers: nobody else writes between a reader's two looks, or between a writer's two strokes."""

from producer.exercise.claims import Fault, Note, each_does


def small(chance):
    return [("2", "1"), ("2", "2")]


def large(chance, place):
    return str(chance.randint(3, 4)), str(chance.randint(1, 3))


def expected(args):
    return f"{[1] * int(args[0])} True"


def claims(history, args):
    if history.ordered:
        yield from torn(history)
    yield from each_does(history, int(args[0]), 1, "write", kind="Array", what="says what it has seen")


def torn(history):
    """Between the two looks or strokes of somebody another one writes."""
    inside = {}
    for op in history.of("read", "write", on="page", others=True):
        if op.part == 0:
            inside[op.worker] = op
        else:
            inside.pop(op.worker, None)
        if op.does == "write":
            for worker, begun in inside.items():
                if worker != op.worker:
                    name = "torn page" if begun.does == "read" else "two writers"
                    did = "reads" if begun.does == "read" else "writes"
                    yield Fault(
                        name, f"{op.worker} writes while {worker} {did} (since line {begun.line})", op.line, op.at
                    )
                    return


def locks(history):
    return history.makes("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition")


def counts_alone(history):
    """Whether somebody writes a count and holds nothing that would keep the others from it."""
    return any(not history.holding(op) for op in history.of("write", kind="Value", others=True))


def leaves_early(history):
    """Whether a reader gives back what a reader took to look at the page, while another one looks at it."""
    looks = list(history.of("read", on="page", others=True))
    room = {name for op in looks if op.part == 0 for name in history.holding(op)}
    inside = set()
    for op in history.ops:
        if op.does == "read" and op.on == "page":
            (inside.add if op.part == 0 else inside.discard)(op.worker)
        elif op.does == "release" and op.on in room and any(op.worker != worker for worker in inside):
            return any(op.worker == look.worker for look in looks)
    return False


def takes_a_part(history):
    """Whether a writer, who has not written yet, has taken some of a semaphore that the readers take as well."""
    readers = {op.worker for op in history.of("read", "arrive") if op.on in ("page", "meeting")}
    shared = {op.on for op in history.of("acquire", kind="Semaphore") if op.worker in readers}
    writers = {op.worker for op in history.ops} - readers - {"main"}
    wrote = {op.worker for op in history.of("write", on="page")}
    took = {op.worker for op in history.of("acquire", kind="Semaphore") if op.on in shared and op.worker in writers}
    return bool(readers) and bool(took - wrote)


def reader_locks(history):
    return any(op.took for op in history.of(worker="Process-1"))


def writer_locks(history):
    writers = {op.worker for op in history.of("write", on="page")}
    return any(op.took and op.worker in writers for op in history.ops)


NOTES = (
    Note(
        "a lock of its own",
        lambda history, fault: history.makes("Lock", "RLock", "Semaphore", by_workers=True),
        "It is made anew each time, by whoever comes, so everybody has one of his own.",
    ),
    Note(
        "a part of the room",
        lambda history, fault: fault.name == "deadlock" and takes_a_part(history),
        "A writer has taken a part of the room and waits for the rest, and a reader waits for the part that it has: one"
        " reader is inside and waits for the other one.",
    ),
    Note(
        "readers apart",
        lambda history, fault: fault.name == "deadlock" and not history.any("read", kind="Value"),
        "The readers keep each other out: one is inside and waits for the other one, who waits to be let in.",
    ),
    Note(
        "counts without a lock",
        lambda history, fault: (
            fault.name in ("deadlock", "torn page", "two writers", "output") and counts_alone(history)
        ),
        "To count is to read and to write, and two come at once: both are the first, or nobody is the last.",
    ),
    Note(
        "writers only",
        lambda history, fault: fault.name == "torn page" and writer_locks(history) and not reader_locks(history),
        "The writers ask for the room and the readers walk in: a lock keeps out only those who ask for it.",
    ),
    Note(
        "readers only",
        lambda history, fault: (
            fault.name in ("torn page", "two writers") and reader_locks(history) and not writer_locks(history)
        ),
        "The readers ask for the room and the writer walks in: a lock keeps out only those who ask for it.",
    ),
    Note(
        "the first one leaves",
        lambda history, fault: fault.name in ("torn page", "raised", "deadlock") and leaves_early(history),
        "The room is given back by a reader who is not the last one, while others still read.",
    ),
    Note(
        "nobody asks",
        lambda history, fault: not locks(history) and not history.makes("Event"),
        "Nobody keeps anybody out yet.",
    ),
)
