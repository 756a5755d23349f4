"""Order from two producers: written in order, each as soon as its turn has come."""

from producer.exercise.claims import Fault, Note, line_of, never, no_timeout


def small(chance):
    return [("1",), ("2",)]


def large(chance, place):
    return (str(chance.randint(4, 9)),)


def expected(args):
    return " ".join(str(number) for number in range(1, 2 * int(args[0]) + 1))


def claims(history, args):
    count = 2 * int(args[0])
    back = "Process-3 puts a number back into the queue from which it took it"
    yield from never(history, "put", worker="Process-3", name="puts back", text=back)
    if history.ordered:
        yield from no_timeout(history, "get", 2, first="get")
        yield from keeps_back(history)
    took = sum(1 for _ in history.of("get", worker="Process-3"))
    if took < count and not history.any("put", worker="Process-3"):
        yield Fault(
            "not taken", f"of {count} numbers {took} are taken out of the queue", line_of(history, "get", "start")
        )


def keeps_back(history):
    """It writes what it has not got, or before its turn, or takes another number although it has the one whose turn it is."""
    has, written = set(), 0
    for op in history.of("get", "write", worker="Process-3"):
        if op.does == "write":
            if op.part is None or op.part + 1 not in has:
                place = "all places" if op.part is None else f"place {op.part + 1}"
                yield Fault(
                    "out of order", f"Process-3 writes into {place} and has not got the number of it", op.line, op.at
                )
                return
            if op.part > written:
                text = f"Process-3 writes {op.part + 1}, and {written + 1}, whose turn it is, is not written yet"
                yield Fault("out of order", text, op.line, op.at)
                return
            written = max(written, op.part + 1)
            continue
        if written + 1 in has:
            yield Fault(
                "keeps back", f"Process-3 takes another number and has {written + 1}, whose turn it is", op.line, op.at
            )
            return
        has.add(op.result)


def writes_between(history):
    """Whether something is written before all is taken."""
    done = [op.does for op in history.of("get", "write", worker="Process-3")]
    return "get" in done[done.index("write") :] if "write" in done else False


NOTES = (
    Note(
        "sorts at the end",
        lambda history, fault: fault.name == "keeps back" and not writes_between(history),
        "The list is right, when all is over. Of a stream that never ends it would never write anything.",
    ),
    Note(
        "puts back",
        lambda history, fault: fault.name == "puts back",
        "It takes and puts the same numbers round and round until the right one has come, and keeps a core"
        " busy with it.",
    ),
    Note(
        "taken from nowhere",
        lambda history, fault: not history.any("get", worker="Process-3"),
        "What is written was not taken out of the queue.",
    ),
    Note(
        "drops what is early",
        lambda history, fault: fault.name == "output",
        "What comes before its turn is thrown away, and never comes again.",
    ),
    Note(
        "as they come",
        lambda history, fault: fault.name == "out of order" and writes_between(history),
        "They are written as they come, and they come in the order in which they were put, not in which they"
        " were drawn.",
    ),
)
