"""Poison pills: all items are taken once, all consumers end, and not by time, by a look or from outside."""

from producer.exercise.claims import Fault, Note, calls, line_of, never, no_timeout


def small(chance):
    return [("1", "2", "1"), ("2", "1", "1"), ("1", "1", "2")]


def large(chance, place):
    return str(chance.randint(2, 3)), str(chance.randint(4, 5)), str(chance.randint(4, 9))


def expected(args):
    return " ".join(["1"] * (int(args[0]) * int(args[2])))


def claims(history, args):
    producers, consumers, count = (int(text) for text in args)
    if history.ordered:
        yield from no_timeout(history, "get", 2, first="get")
        look = "{op.worker} asks what is in the queue, which is another thing than whether more comes"
        yield from never(history, "empty", "qsize", name="a look", text=look)
    outside = "the main process ends {op.on}, whatever it is doing"
    yield from never(history, "terminate", name="from outside", text=outside)
    if history.started < producers + consumers:
        yield Fault(
            "not started",
            f"{history.started} processes are started where {producers + consumers} should be",
            line_of(history, "print"),
        )
        return
    items = producers * count
    took = sum(1 for op in history.of("write", kind="Array", others=True))
    if took < items:
        yield Fault(
            "lost items", f"of {items} items {items - took} were never taken out", line_of(history, "get", "print")
        )


NOTES = (
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "That nothing has come for some time says nothing of what comes next: a producer may be slow.",
    ),
    Note(
        "a look",
        lambda history, fault: fault.name == "a look",
        "empty() is what was so a moment ago. Before the first item it is true as well.",
    ),
    Note(
        "from outside",
        lambda history, fault: fault.name == "from outside",
        "It is ended wherever it stands: with an item in its hands, or with the queue's lock.",
    ),
    Note(
        "nobody puts",
        lambda history, fault: fault.name in ("lost items", "output", "not started") and not history.any("put"),
        "Nothing goes through the queue, so nobody has anything to do.",
    ),
    Note(
        "too few",
        lambda history, fault: fault.name == "deadlock" and "None" in history.source,
        "A None goes to one consumer, who takes it out. The others wait for one of their own.",
    ),
    Note(
        "no pill",
        lambda history, fault: fault.name == "deadlock",
        "Nobody says that it is over, so all of them wait for the next item.",
    ),
    Note(
        "before the end",
        lambda history, fault: fault.name in ("lost items", "output") and not calls(history.source, "empty"),
        "A None is put while another producer is still at work: it ends a consumer, and what comes behind it is left.",
    ),
)
