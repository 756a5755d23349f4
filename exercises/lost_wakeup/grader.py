"""Lost wake-up: all are woken, none before it is so, none by time, none by asking."""

from producer.exercise.claims import Fault, Note, calls, each_does, line_of, no_asking, no_timeout


def small(chance):
    return [("1",), ("2",)]


def large(chance, place):
    return (str(chance.randint(3, 5)),)


def expected(args):
    return args[0]


def claims(history, args):
    count = int(args[0])
    if history.ordered:
        yield from too_early(history)
        yield from no_timeout(history, "wait", first="wait")
        yield from no_asking(history, 3, "read", kind="Value", what="reads ready")
    yield from each_does(history, count, 1, "write", kind="Array", what="says that it has seen it")
    teller = f"Process-{count + 1}"
    if not history.any("write", kind="Value", worker=teller):
        yield Fault("no work", f"{teller} never sets ready", line_of(history, "start"))


def too_early(history):
    told = next((op.at for op in history.of("write", kind="Value")), None)
    for op in history.of("write", kind="Array"):
        if told is None or op.at < told:
            yield Fault("too early", f"{op.worker} goes on before ready is set", op.line, op.at)
            return


NOTES = (
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "With a time they go on, but so long after they could have, and an idle program wakes up again and"
        " again for nothing.",
    ),
    Note(
        "asks again and again",
        lambda history, fault: fault.name in ("asks again and again", "no progress", "too long"),
        "This keeps a core busy with nothing but asking. To wait is to be asleep until somebody says that it is time.",
    ),
    Note(
        "one is woken",
        lambda history, fault: fault.name == "deadlock" and "notify(" in history.source,
        "notify() wakes one of those who wait, and here are several. Who is not woken has nobody left who would do it.",
    ),
    Note(
        "without the lock",
        lambda history, fault: fault.name == "raised",
        "wait() and notify() must be called by who has the condition's lock: that is what makes them one"
        " step with the look.",
    ),
    Note(
        "told before it was so",
        lambda history, fault: fault.name == "deadlock" and told_first(history),
        "Who is woken looks, finds that it is not so yet, and waits again; and then it becomes so, and"
        " nobody says it any more.",
    ),
    Note(
        "does not look",
        lambda history, fault: fault.name == "deadlock" and not reads(history),
        "Who begins to wait when all has been said waits for ever. Look first, with the lock in hand.",
    ),
    Note(
        "between look and wait",
        lambda history, fault: fault.name == "deadlock",
        "Between its look, which found it not ready, and its wait, ready was set and everybody woken who"
        " waited at the time.",
    ),
    Note(
        "nobody waits",
        lambda history, fault: fault.name == "too early" and not calls(history.source, "wait", "wait_for"),
        "It does not wait at all.",
    ),
)


def told_first(history):
    told = next((op.at for op in history.of("notify")), None)
    said = next((op.at for op in history.of("write", kind="Value")), None)
    return told is not None and (said is None or told < said)


def reads(history):
    return history.any("read", kind="Value", others=True)
