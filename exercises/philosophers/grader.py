"""Dining philosophers: two forks at each meal, no circle, no trying again and again."""

from producer.exercise.claims import Fault, Note, calls, each_does, in_circle, no_timeout


def small(chance):
    return [("2", "1"), ("3", "1"), ("2", "2")]


def large(chance, place):
    return str(chance.randint(3, 5)), str(chance.randint(3, 10))


def expected(args):
    return " ".join([args[1]] * int(args[0]))


def claims(history, args):
    seats, times = int(args[0]), int(args[1])
    if history.ordered:
        yield from at_the_table(history, seats)
        yield from no_timeout(history, "acquire", 2, first="acquire")
    yield from each_does(history, seats, times, "write", kind="Array", what="eats")


def at_the_table(history, seats):
    for op in history.of("write", kind="Array", others=True):
        if op.part is None:
            continue
        needs = {f"forks[{op.part}]", f"forks[{(op.part + 1) % seats}]"}
        has = {name for name in history.holding(op) if name.startswith("forks[")}
        if not needs <= has:
            yield Fault(
                "forks missing", f"{op.worker} eats and holds {', '.join(sorted(has)) or 'no fork'}", op.line, op.at
            )
        elif has - needs:
            yield Fault("all forks", f"{op.worker} eats and holds {', '.join(sorted(has - needs))} too", op.line, op.at)


NOTES = (
    Note(
        "polite",
        lambda history, fault: fault.name in ("no progress", "too long"),
        "All take a fork, all find the other one gone, all put theirs back, and all begin again, at the same time.",
    ),
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "All may give up at the same time and begin again at the same time. It ends by luck, if it ends.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "deadlock" and history.any("sleep"),
        "A sleep makes it rarer that all hold one fork. They still may, and then nothing helps any more.",
    ),
    Note(
        "all the other way",
        lambda history, fault: in_circle(fault, "forks[") and right_first(history),
        "Now all take the right fork first. It is the same circle, seen in a mirror: what helps is one who differs.",
    ),
    Note(
        "all forks",
        lambda history, fault: fault.name == "all forks",
        "Who has all the forks of the table eats alone, and those who would not have been in his way wait for him.",
    ),
    Note(
        "one fork",
        lambda history, fault: fault.name == "forks missing" and calls(history.source, "dine", "Process"),
        "Nobody waits for ever, since nobody waits for a second fork; and two eat with the same one.",
    ),
    Note(
        "a circle",
        lambda history, fault: in_circle(fault, "forks[") and not right_first(history),
        "Each has his left fork and waits for the right one, which is the left one of his neighbour, all"
        " around the table.",
    ),
)


def right_first(history):
    """Whether each philosopher takes his right fork first."""
    firsts = [
        next((op.on for op in history.of("acquire", worker=worker) if op.on.startswith("forks[")), "")
        for worker in sorted(history.workers)
    ]
    return firsts == [f"forks[{(seat + 1) % len(firsts)}]" for seat in range(len(firsts))]
