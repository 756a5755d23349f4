"""Two locks: both held at each write, no circle, no round and round."""

from producer.exercise.claims import Fault, Note, calls, each_does, in_circle, lost_writes


def small(chance):
    return [("5", "3", "1"), (str(chance.randint(1, 20)), str(chance.randint(21, 40)), "2")]


def large(chance, place):
    return str(chance.randint(1, 9)), str(chance.randint(1, 9)), str(chance.randint(10, 20))


def expected(args):
    there, back, times = (int(text) for text in args)
    return f"{100 - (there - back) * times} {100 + (there - back) * times}"


def claims(history, args):
    yield from lost_writes(history)
    for op in history.of("write", kind="Array", others=True):
        if len(history.holding(op)) < 2:
            held = ", ".join(history.holding(op)) or "no lock"
            yield Fault("not both", f"{op.worker} moves money and has {held}, where it needs both", op.line, op.at)
    if history.ordered:
        yield from each_does(history, 2, 2 * int(args[2]), "write", kind="Array", what="moves money")
    else:  # the trace of a real place knows nothing of what has no lock of its own
        yield from each_does(history, 2, 2 * int(args[2]), "acquire", kind="Lock", what="takes its locks")


def rounds(history):
    return calls(history.source, "acquire") and history.any("try")


def gives_back(history):
    """Whether who did not get the second lock lets go of the first one before he asks again."""
    failed = set()
    for op in history.of("try", "acquire", "release", kind="Lock"):
        if op.does == "release":
            if op.worker in failed:
                return True
        elif op.does == "try" and not op.took:
            failed.add(op.worker)
        else:
            failed.discard(op.worker)
    return False


NOTES = (
    Note(
        "polite",
        lambda history, fault: fault.name in ("no progress", "too long") and rounds(history) and gives_back(history),
        "Both take one lock, find the other one gone, give theirs back, and begin again, at the same time.",
    ),
    Note(
        "asks and holds",
        lambda history, fault: (
            fault.name in ("no progress", "too long", "deadlock") and rounds(history) and not gives_back(history)
        ),
        "Asking again and again is waiting all the same. Who holds one lock while he asks for the other"
        " keeps the circle closed.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "deadlock" and history.any("sleep"),
        "A sleep makes it less likely that both hold one lock at the same time. The circle is still there.",
    ),
    Note(
        "one after the other",
        lambda history, fault: (
            fault.name == "not both"
            and calls_both(history)
            and not any(len(history.holding(op)) > 1 for op in history.ops)
        ),
        "There is no circle since nobody holds two locks; so between the two steps the money is nowhere, and"
        " whoever looks sees it"
        " gone. Have both while you move.",
    ),
    Note(
        "one lock only",
        lambda history, fault: fault.name in ("not both", "lost write") and history.any("acquire", kind="Lock"),
        "With one of the locks alone, the other account is anybody's: who comes from the other side holds"
        " the other lock.",
    ),
    Note(
        "no lock",
        lambda history, fault: fault.name in ("not both", "lost write") and not history.any("acquire", kind="Lock"),
        "Without locks there is no deadlock, and no account that one could rely on either.",
    ),
    Note(
        "a circle",
        lambda history, fault: in_circle(fault, "locks["),
        "Each holds the lock that the other one wants: the order in which they take them depends on which"
        " way the money goes.",
    ),
)


def calls_both(history):
    return all(
        len({op.on for op in history.of("acquire", kind="Lock", worker=worker)}) > 1 for worker in history.workers
    ) or (sum(history.source.count(f"with locks[{name}]") for name in ("source", "target")) > 1)
