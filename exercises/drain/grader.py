"""Join before drain: all results are taken out of a queue that stays small."""

from producer.exercise.claims import Fault, Note, each_does, line_of, never, no_timeout


def small(chance):
    return [("1", "2"), ("2", "2")]


def large(chance, place):
    return str(chance.randint(2, 4)), str(chance.randint(3, 9))


def expected(args):
    return str(sum(number * number for number in range(int(args[0]) * int(args[1]))))


def claims(history, args):
    workers, count = int(args[0]), int(args[1])
    for one in history.made:
        many = sum(1 for _ in history.of("put", on=one.on)) > 1  # one answer of somebody who drains is another matter
        if history.ordered and one.kind == "Queue" and one.bound != 1 and many:
            yield Fault(
                "larger",
                f"the queue {one.on} holds {one.bound or 'any number of items'}, where it was to hold one",
                line_of(history, "Queue"),
                0,
            )
    yield from no_timeout(history, "join", first="join")
    yield from no_timeout(history, "get", 2, first="get")
    look = "{op.worker} asks what is in the queue now, which is another thing than what will come"
    yield from never(history, "empty", "qsize", name="a look", text=look)
    outside = "the main process ends {op.on}, whatever it still has to say"
    yield from never(history, "terminate", name="from outside", text=outside)
    yield from each_does(history, workers, count, "put", kind="Queue", what="puts a result")


NOTES = (
    Note(
        "a larger queue",
        lambda history, fault: fault.name == "larger",
        "A larger queue hangs later: when there are more results, or larger ones. What was wrong is still there.",
    ),
    Note(
        "a timeout",
        lambda history, fault: fault.name == "by time",
        "It goes on after a time, whatever has been done by then.",
    ),
    Note(
        "a look",
        lambda history, fault: fault.name == "a look",
        "The queue is empty before the first result as well, and between any two of them.",
    ),
    Note(
        "from outside",
        lambda history, fault: fault.name == "from outside",
        "Who is ended from outside may have results that nobody has taken.",
    ),
    Note(
        "some are taken",
        lambda history, fault: (
            history.any("get", worker="main")
            and (fault.name == "output" or (fault.name == "deadlock" and "(put)" in fault.text))
        ),
        "Some results are taken before the join, and not all: who has one left still waits for room.",
    ),
    Note(
        "one too many",
        lambda history, fault: fault.name == "deadlock" and "main waits for" in fault.text and "(get)" in fault.text,
        "The main program waits for a result more than there are, and nobody is left who would put one.",
    ),
    Note(
        "join first",
        lambda history, fault: fault.name == "deadlock",
        "The main program waits for the end of a worker, who waits for room in the queue, which only the"
        " main program can make.",
    ),
)
