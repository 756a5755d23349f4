"""A barrier: nobody is ahead of a round that others have not ended, nobody is left behind."""

from producer.exercise.claims import Fault, Note, each_does, line_of, no_asking, no_timeout


def small(chance):
    return [("2", "1"), ("2", "2"), ("3", "1")]


def large(chance, place):
    return str(chance.randint(3, 4)), str(chance.randint(3, 6))


def expected(args):
    parties, rounds = int(args[0]), int(args[1])
    return f"{[rounds] * parties} 0"


def claims(history, args):
    parties, rounds = int(args[0]), int(args[1])
    if history.makes("Barrier"):
        yield Fault(
            "ready made", "a Barrier is made, where one is to be made of a Condition", line_of(history, "Barrier"), 0
        )
    if history.ordered:
        yield from ahead(history, parties)
        yield from no_timeout(history, "wait", first="wait")
        yield from no_asking(history, 4 * rounds, "read", kind="Value", what="looks at the count")
    yield from each_does(history, parties, rounds, "write", kind="Array", what="says how far it is")


def ahead(history, parties):
    """A look at how far all are, before all are so far."""
    done = dict.fromkeys((f"Process-{number}" for number in range(1, parties + 1)), 0)
    for op in history.of("read", "write", on="progress"):
        if op.worker not in done:
            continue
        if op.does == "write":
            done[op.worker] += 1
        elif behind := [worker for worker, number in done.items() if number < done[op.worker]]:
            yield Fault(
                "ahead",
                f"{op.worker} has left the meeting of round {done[op.worker]}, to which {behind[0]} has not come",
                op.line, op.at,
            )  # fmt: skip
            return


NOTES = (
    Note(
        "ready made",
        lambda history, fault: fault.name == "ready made",
        "That is right, and here you make what is in it.",
    ),
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "Who goes on after a time goes on whether all have come or not.",
    ),
    Note(
        "asks again and again",
        lambda history, fault: fault.name in ("asks again and again", "no progress", "too long"),
        "It asks until it is so, and keeps a core busy with it, or the lock that the others need.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "ahead" and history.any("sleep"),
        "A sleep is no meeting: it ends after a time, whoever has come by then.",
    ),
    Note(
        "one is woken",
        lambda history, fault: fault.name == "deadlock" and "notify()" in history.source,
        "notify() wakes one of them, and all have to be woken.",
    ),
    Note(
        "never set back",
        lambda history, fault: fault.name == "ahead" and grows(history),
        "The count is never set back, so from the second round on all have come before anybody has.",
    ),
    Note(
        "nobody waits",
        lambda history, fault: fault.name == "ahead" and not history.any("wait", others=True),
        "Nobody waits here.",
    ),
    Note(
        "overtaken",
        lambda history, fault: fault.name == "deadlock" and looked_too_late(history),
        "Who was woken looked too late: a faster one has come back already, so the count is no longer 0, and"
        " he waits for a round that"
        " is over.",
    ),
)


def grows(history):
    """Whether the count is written and is never less than it was."""
    seen = [op.result for op in history.of("read", on="arrived", others=True) if op.result is not None]
    return history.any("write", on="arrived", others=True) and seen == sorted(seen)


def looked_too_late(history):
    """Whether somebody was woken, finds that the count is not 0, and waits again."""
    for worker in history.workers:
        did = [op for op in history.of("wake", "read", "wait", worker=worker) if op.on != "progress"]
        for woken, looked, waits in zip(did, did[1:], did[2:], strict=False):
            words = woken.does, looked.does, looked.on, waits.does
            if words == ("wake", "read", "arrived", "wait") and looked.result:
                return True
    return False
