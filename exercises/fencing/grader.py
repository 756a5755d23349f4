"""Fencing: once a holder of the lease has written, no earlier one does."""

from producer.exercise.claims import Fault, Note, line_of


def small(chance):
    return [("2",), ("1",)]


def large(chance, place):
    return (str(chance.randint(3, 6)),)


def expected(args):
    return f"{args[0]} {10 * int(args[0]) + 2}"


def claims(history, args):
    holders = int(args[0])
    if history.ordered:
        yield from late(history)
        yield from keeps_the_lease(history)
    took = {op.worker for op in history.of("write", kind="Value", others=True)}
    if len(took) < holders:
        yield Fault("not held", f"of {holders} holders {len(took)} have held the lease", line_of(history, "start"))


def late(history):
    """A write by who had the lease before somebody who has written."""
    tokens = {}
    newest = None
    for op in history.of("write", kind="Value", others=True):
        if op.on == "lease":
            tokens[op.worker] = len(tokens) + 1
        elif op.on == "value":
            if newest is not None and tokens.get(op.worker, 0) < tokens.get(newest.worker, 0):
                yield Fault(
                    "late",
                    f"{op.worker} has token {tokens.get(op.worker, 0)} and writes over what {newest.worker} wrote with token"
                    f" {tokens[newest.worker]}",
                    op.line, op.at,
                )  # fmt: skip
                return
            newest = op


def keeps_the_lease(history):
    for op in history.of("write", on="value"):
        if "lease's lock" in history.holding(op):
            yield Fault("keeps", f"{op.worker} writes and has the lock of the lease meanwhile", op.line, op.at)
            return


def looks_at(history, name):
    return history.any("read", on=name, others=True)


def compares(history):
    """Whether somebody looks at something else than the lease before he writes."""
    return any(op.on != "lease" for op in history.of("read", kind="Value", others=True))


def inside(history):
    """Whether the highest token is read by somebody who has the store's lock."""
    return all(history.holding(op) for op in history.of("read", on="newest"))


NOTES = (
    Note(
        "keeps the lease",
        lambda history, fault: fault.name == "keeps",
        "Nobody else can have the lease as long as this one writes, and if it is frozen or dead, nobody ever can.",
    ),
    Note(
        "compares without the lock",
        lambda history, fault: fault.name == "late" and looks_at(history, "newest") and not inside(history),
        "Between the comparison and the write another one compares and writes. They must be one step: in the"
        " store, with its lock.",
    ),
    Note(
        "asks for the lease",
        lambda history, fault: fault.name == "late" and history.source.count("lease.value") > 3,
        "It had the lease when it looked, and no longer when it wrote. However late one looks, one can be"
        " frozen just after it.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "late" and history.any("sleep"),
        "However long one waits, somebody can be frozen for longer.",
    ),
    Note(
        "too strict",
        lambda history, fault: fault.name == "output" and looks_at(history, "newest"),
        "The same token may come again: its holder writes twice. Only a lower one is late.",
    ),
    Note(
        "nobody writes",
        lambda history, fault: fault.name in ("output", "not held"),
        "What is stored in the end is not what the last holder wrote.",
    ),
    Note(
        "nobody compares",
        lambda history, fault: fault.name == "late" and not compares(history),
        "The store takes whatever comes, with whatever token.",
    ),
)
