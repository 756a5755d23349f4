"""An idempotent task: every amount is added once, by somebody."""

from producer.exercise.claims import Fault, Note, line_of, lost_writes


def small(chance):
    return [("5",), ("5", "7"), (str(chance.randint(10, 60)),)]


def large(chance, place):
    return tuple(str(chance.randint(1, 50)) for _ in range(chance.randint(4, 8)))


def expected(args):
    return str(100 + sum(int(text) for text in args))


def claims(history, args):
    yield from lost_writes(history)
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
        yield Fault("not done", f"of {len(args)} tasks {len(added)} were done", line_of(history, "start"))


def reads_done(history):
    return history.any("read", on="done", others=True)


NOTES = (
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
