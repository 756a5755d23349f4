"""At least once: nothing is acknowledged before it is done, and all that is done is acknowledged at once."""

from producer.exercise.claims import Fault, Note


def small(chance):
    return [("2", "-1"), ("3", str(chance.randint(1, 100)))]


def large(chance, place):
    return str(chance.randint(10, 15)), "-1" if place == "threads" else str(chance.randint(300, 1500))


def expected(args):
    return "lost 0, too often 0"


def claims(history, args):
    if not history.ordered:  # what has no lock of its own is not in the trace of a real place
        if args[1] != "-1" and not history.any("terminate"):
            yield Fault("no kill", "the worker was not killed", 0)
        return
    first = done_before_acked(history)
    yield from first
    count = int(args[0])
    if not first and not history.any("terminate"):
        for name, word in (("done", "done"), ("acked", "acknowledged")):
            if (found := sum(1 for op in history.of("write", on=name, others=True))) < count:
                text = f"of {count} tasks {found} are {word}"
                yield Fault("not done" if name == "done" else "never acked", text, work_line(history))


def done_before_acked(history):
    done = set()
    for op in history.of("write"):
        if op.on == "done":
            done.add(op.part)
        elif op.on == "acked" and op.part not in done:
            return [Fault("acked first", f"{op.worker} acknowledges task {op.part}, which is not done", op.line, op.at)]
    return []


def work_line(history):
    return next(number for number, line in enumerate(history.source.splitlines(), 1) if line.startswith("def work"))


NOTES = (
    Note(
        "not done at all",
        lambda history, fault: fault.name in ("acked first", "not done") and not any(history.of("write", on="done")),
        "All is acknowledged and nothing done. No loss is smaller than that of work that was never there.",
    ),
    Note(
        "acked first",
        lambda history, fault: fault.name == "acked first",
        "Who is killed after the acknowledgement and before the work leaves a task that nobody will do any more.",
    ),
    Note(
        "never acknowledged",
        lambda history, fault: fault.name == "never acked",
        "Nothing is lost, and everything is done again, whether somebody was killed or not.",
    ),
    Note(
        "at the end",
        lambda history, fault: fault.name == "output",
        "All is acknowledged together, at the end: a kill just before that does all of it again.",
    ),
)
