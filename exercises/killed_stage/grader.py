"""A pipeline that survives a killed worker: nothing is added that is not there, and nothing that is there is missed."""

from producer.exercise.claims import Fault, Note, line_of, no_asking, no_timeout


def small(chance):
    return [("-1", "3", "4"), (str(chance.randint(1, 90)), str(chance.randint(2, 9)), str(chance.randint(10, 20)))]


def large(chance, place):
    numbers = [str(chance.randint(1, 30)) for _ in range(chance.randint(10, 15))]
    return "-1" if place == "threads" else str(chance.randint(300, 1500)), *numbers


def expected(args):
    return str(sum(int(text) ** 2 for text in args[1:]))


def claims(history, args):
    count = len(args) - 1
    if history.ordered:
        yield from too_early(history)
        yield from no_timeout(history, "acquire", 2, first="acquire")
        yield from no_asking(history, 6 * count, "read", kind="Value", what="looks at ready")
        if not history.any("terminate"):
            done = sum(1 for op in history.of("write", on="squares", others=True))
            if done < count:
                yield Fault(
                    "less work" if done else "no work",
                    f"of {count} numbers {done} are squared by the first stage",
                    line_of(history, "start"),
                )
    elif args[0] != "-1" and not history.any("terminate"):
        yield Fault("no kill", "the worker was not killed", 0)
    if not history.any("write", on="total" if history.ordered else "Value 2", others=True):
        yield Fault("no work", "the second stage never adds anything", line_of(history, "start"))


def too_early(history):
    there = set()
    for op in history.of("read", "write", on="squares"):
        if op.does == "write":
            there.add(op.part)
        elif op.part not in there and op.worker == "Process-1":
            yield Fault(
                "not there",
                f"Process-1 adds the square of number {op.part + 1}, which is not there yet",
                op.line,
                op.at,
            )
            return


NOTES = (
    Note(
        "a timeout",
        lambda history, fault: fault.name in ("by time", "not looked"),
        "It goes on after a time, and adds what is there by then, or looks again and again with pauses.",
    ),
    Note(
        "asks again and again",
        lambda history, fault: fault.name in ("asks again and again", "no progress", "too long"),
        "The second stage keeps a core busy with looking. The semaphore is there to sleep on.",
    ),
    Note(
        "ready too early",
        lambda history, fault: fault.name == "not there" and early(history),
        "ready says that a square is there before it is, and a kill falls in between.",
    ),
    Note(
        "a lost token",
        lambda history, fault: fault.name == "deadlock" and history.any("terminate"),
        "The worker was killed after it had written ready and before it told: the square is there, and"
        " nobody says so any more.",
    ),
    Note(
        "counts tokens",
        lambda history, fault: fault.name in ("not there", "output"),
        "The new worker begins from the start, and gives tokens again that were given. So the second stage"
        " is told of more than is there.",
    ),
)


def early(history):
    """Whether a square is announced before it is written."""
    done = 0
    for op in history.of("write", worker="Process-2"):
        if op.on == "squares":
            done += 1
        elif op.on == "ready" and not done:
            return True
        elif op.on == "ready":
            done = 0
    return False
