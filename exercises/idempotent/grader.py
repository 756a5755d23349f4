"""An idempotent task: every amount is added once, by somebody."""

from dataclasses import dataclass

from producer.exercise.claims import Fault, Note, line_of, lost_writes
from producer.exercise.history import Op


def small(chance):
    return [("5",), ("5", "7"), ("6", "6"), (str(chance.randint(10, 60)),)]


def large(chance, place):
    return tuple(str(chance.randint(1, 50)) for _ in range(chance.randint(4, 8)))


def expected(args):
    return str(100 + sum(int(text) for text in args))


def claims(history, args):
    yield from lost_writes(history)
    if history.ordered:
        yield from marked_first(history)
    added = list(history.of("write", kind="Value", others=True))
    if len(added) > len(args):
        again = added[len(args)]
        yield Fault(
            "twice",
            f"{again.worker} adds to the balance once more than there are tasks ({len(args)})",
            again.line,
            again.at,
        )
    elif len(added) < len(args):
        name = "by amount" if len(added) == len(set(args)) == len(marked(history)) else "not done"
        yield Fault(name, f"of {len(args)} tasks {len(added)} were done", line_of(history, "start"))


def marked(history):
    """The tasks of which somebody says that they are done."""
    return {op.part for op in history.of("write", on="done", others=True)}


def marked_first(history):
    """Others could see that a task is done which its worker added only later: had it died before, nobody would."""
    added, owed = {}, {}
    for op in history.of(others=True):
        mine = owed.get(op.worker)
        if op.does == "write" and op.kind == "Value":
            if mine is None:
                added[op.worker] = added.get(op.worker, 0) + 1
            elif mine.seen:
                text = f"{op.worker} marks task {mine.op.part}, and others can see that before it is added (line {op.line})"
                yield Fault("marked first", text, mine.op.line, mine.op.at)
                return
            owed.pop(op.worker, None)
        elif op.does == "write" and op.on == "done" and op.part is not None:
            if added.get(op.worker):
                added[op.worker] -= 1
            else:
                owed[op.worker] = Mark(op, set(history.holding(op)))
        elif op.does == "release" and mine is not None:
            mine.held.discard(op.on)
        elif op.does == "read" and op.on == "done":
            for worker, mark in owed.items():
                mark.looked |= worker != op.worker and op.part in (mark.op.part, None)


@dataclass
class Mark:
    """A task that was marked and not added; the locks that it was marked under, and whether another one looked at it."""

    op: Op
    held: set
    looked: bool = False

    @property
    def seen(self):
        return self.looked or not self.held


def reads_done(history):
    return history.any("read", on="done", others=True)


NOTES = (
    Note(
        "marked first",
        lambda history, fault: fault.name == "marked first",
        "Who finds the mark leaves the task alone. If the one who set it dies before the addition, the task is lost:"
        " look, add and mark under one lock.",
    ),
    Note(
        "by its amount",
        lambda history, fault: fault.name == "by amount",
        "Two tasks may have the same amount, and both count. What tells them apart is their number.",
    ),
    Note(
        "its own memory",
        lambda history, fault: fault.name == "twice" and "set()" in history.source,
        "What a process keeps for itself no other one sees. The second delivery went to another worker.",
    ),
    Note(
        "look, then lock",
        lambda history, fault: fault.name in ("twice", "lost write") and reads_done(history),
        "Both look before either has marked it. The look must be in the same locked step as the addition and the mark.",
    ),
    Note(
        "nobody does it",
        lambda history, fault: fault.name == "not done",
        "At most once is the other mistake: somebody says that it is done, and nobody has done it.",
    ),
    Note(
        "nobody looks",
        lambda history, fault: fault.name == "twice",
        "Nobody looks whether it has been done: every delivery counts.",
    ),
)
