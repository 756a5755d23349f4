"""A pool and exceptions: an outcome for each call, all asked for before the first is waited for, all by the pool."""

from producer.exercise.claims import Fault, Note, calls, line_of


def small(chance):
    return [
        ("2", "3"),
        (str(3 * chance.randint(1, 9)), str(3 * chance.randint(1, 9) + 1), str(3 * chance.randint(1, 9) + 2)),
    ]


def large(chance, place):
    return tuple(
        str(number)
        for number in [3 * chance.randint(1, 9), *(chance.randint(1, 40) for _ in range(chance.randint(6, 10)))]
    )


def expected(args):
    return " ".join("failed" if int(text) % 3 == 0 else str(int(text) ** 2) for text in args)


def claims(history, args):
    if not history.makes("Pool", "results") and not history.any("answer"):
        yield Fault("no pool", "no pool is made: nobody but the main process works", line_of(history, "print"))
        return
    done = sum(1 for op in history.of("answer", others=True))
    if done < len(args):
        yield Fault(
            "not asked", f"the pool has done {done} calls, and there are {len(args)} numbers", line_of(history, "Pool")
        )
    if history.ordered:
        if not history.any("wait", kind="results", worker="main"):
            yield Fault("constant", "what is printed here was not asked of the pool", line_of(history, "print"))
        waited = list(history.of("wait", kind="results", worker="main"))
        asked = list(history.of("put", worker="main"))
        if waited and any(op.at > waited[0].at for op in asked[: len(args)]):
            yield Fault(
                "one by one", "a result is waited for before the next one is asked for", waited[0].line, waited[0].at
            )


NOTES = (
    Note(
        "one by one",
        lambda history, fault: fault.name == "one by one",
        "To ask and wait in one loop keeps one worker busy and all others idle. Ask for all of them first.",
    ),
    Note(
        "ready or not",
        lambda history, fault: (
            calls(history.source, "ready") and not history.any("wait", kind="results", worker="main")
        ),
        "ready() says how it is now, and waits for nothing. A call that is not ready yet has not failed.",
    ),
    Note(
        "in any order",
        lambda history, fault: fault.name == "output" and calls(history.source, "imap_unordered"),
        "imap_unordered hands out results as they come, and does not say whose they are.",
    ),
    Note(
        "no pool",
        lambda history, fault: fault.name in ("no pool", "not asked"),
        "The main process does the work itself, or nobody does. It belongs to the pool.",
    ),
    Note(
        "around the map",
        lambda history, fault: fault.name == "output" and calls(history.source, "map", "starmap"),
        "A try around map catches the one exception that map raises, and all results are gone with it.",
    ),
    Note(
        "around the loop",
        lambda history, fault: fault.name == "output" and calls(history.source, "imap", "imap_unordered"),
        "The exception of one call ends the loop over all of them. Each needs a try of its own.",
    ),
    Note(
        "a callback",
        lambda history, fault: fault.name == "output" and "callback" in history.source,
        "callback= is told of results alone, in the order in which they come. Of a call that raised it never hears.",
    ),
    Note(
        "all or nothing",
        lambda history, fault: fault.name in ("raised", "output") and calls(history.source, "map", "starmap"),
        "map has one answer for all its calls, and one that raised makes it an exception.",
    ),
)
