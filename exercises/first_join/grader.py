"""The first join: all results are written before they are read, by workers that are all there at once."""

from producer.exercise.claims import (
    Fault,
    Note,
    all_at_once,
    calls,
    each_does,
    never_by_main,
    no_timeout,
    printed_is_read,
    shared,
)


def small(chance):
    first, second, third = chance.sample(range(2, 30), 3)
    return [("2", "3"), (str(first), str(second), str(third))]


def large(chance, place):
    return tuple(str(chance.randint(2, 100)) for _ in range(chance.randint(5, 7)))


def expected(args):
    return str(sum(int(text) ** 2 for text in args))


def claims(history, args):
    if history.ordered:
        yield from read_too_early(history, len(args))
        yield from no_timeout(history, "join", first="join")
    yield from never_by_main(history, "write", kind="Array", what="writes a result")
    yield from each_does(history, len(args), 1, "write", kind="Array", what="writes its result")
    yield from printed_is_read(history, shared(history, "Array"))
    yield from all_at_once(history)


def read_too_early(history, workers):
    for read in history.of("read", kind="Array", worker="main"):
        late = [op for op in history.of("write", kind="Array") if op.at > read.at]
        written = {op.worker for op in history.of("write", kind="Array") if op.at < read.at}
        if late and len(written) < workers:
            yield Fault(
                "too early",
                f"the main process reads the results before {late[0].worker} has written its own (line {late[0].line})",
                read.line, read.at,
            )  # fmt: skip
            return


def looks(history):
    """Whether the main process looks at the results more than once."""
    return sum(1 for _ in history.of("read", kind="Array", worker="main")) > 1


NOTES = (
    Note(
        "guessed from the results",
        lambda history, fault: (
            fault.name == "too early" and not calls(history.source, "join", "is_alive") and looks(history)
        ),
        "What is there tells nothing of what is still to come, and asking keeps a core busy. To wait for a process is"
        " to join it.",
    ),
    Note(
        "in a row",
        lambda history, fault: fault.name == "in a row",
        "The sum is right, but the second worker is not even started while the first one works. Start all,"
        " then wait for all.",
    ),
    Note(
        "a sleep",
        lambda history, fault: fault.name == "too early" and history.any("sleep", worker="main"),
        "No time is long enough: a machine that is busy lets a process wait for as long as it likes. Wait"
        " for its end instead.",
    ),
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "join(timeout) returns in any case, whether the process has ended or not. Nothing looks at which of"
        " the two it was.",
    ),
    Note(
        "not all of them",
        lambda history, fault: fault.name == "too early" and history.any("join"),
        "Some are waited for, and others are not: that one has ended says nothing of the others.",
    ),
    Note(
        "nobody is waited for",
        lambda history, fault: (
            fault.name == "too early" and not calls(history.source, "join", "is_alive") and not looks(history)
        ),
        "The workers were asked for, and have not been waited for.",
    ),
)
