"""At least once: nothing is acknowledged before it is done, and all that is done is acknowledged at once."""

import ast

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
    yield from not_worked(history)
    yield from acked_when_raised(history)
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


def not_worked(history):
    """A task is marked as done by who has not slept since the last one: the sleep is the work."""
    slept = set()
    for op in history.of("sleep", "write", others=True):
        if op.does == "sleep":
            slept.add(op.worker)
        elif op.on == "done":
            if op.worker not in slept:
                text = f"{op.worker} says that task {op.part} is done, and has not worked at it (the sleep)"
                yield Fault("not worked", text, op.line, op.at)
                return
            slept.discard(op.worker)


def acked_when_raised(history):
    """A task whose work raises is acknowledged all the same: in a finally, in an except, or after one that goes on."""
    for block in blocks(ast.parse(history.source)):
        for at, one in enumerate(block):
            if not isinstance(one, (ast.Try, ast.With)) or not works(one.body):
                continue
            caught = one.handlers if isinstance(one, ast.Try) else []
            after = block[at + 1 :] if any(goes_on(each.body) for each in caught) or suppresses(one) else []
            late = [*getattr(one, "finalbody", []), *(each for handler in caught for each in handler.body), *after]
            for op in history.of("write", on="acked"):
                if any(each.lineno <= op.line <= each.end_lineno for each in late):
                    text = f"{op.worker} acknowledges task {op.part} here even if its work has raised"
                    yield Fault("acked when raised", text, op.line, op.at)
                    return


def blocks(tree):
    return [
        block
        for node in ast.walk(tree)
        for name in ("body", "orelse")
        if isinstance(block := getattr(node, name, 0), list)
    ]


def works(block):
    return any(isinstance(node, (ast.Call, ast.AugAssign)) for each in block for node in ast.walk(each))


def goes_on(block):
    """Whether what follows is done after it."""
    return not isinstance(block[-1], (ast.Raise, ast.Return, ast.Continue, ast.Break))


def suppresses(block):
    return isinstance(block, ast.With) and any(
        "suppress" in ast.unparse(item.context_expr).partition("(")[0] for item in block.items
    )


def work_line(history):
    return next(number for number, line in enumerate(history.source.splitlines(), 1) if line.startswith("def work"))


NOTES = (
    Note(
        "not done at all",
        lambda history, fault: fault.name in ("acked first", "not done") and not any(history.of("write", on="done")),
        "All is acknowledged and nothing done. No loss is smaller than that of work that was never there.",
    ),
    Note(
        "not worked",
        lambda history, fault: fault.name == "not worked",
        "What is marked as done before it is worked at, or without, is lost when its worker is killed meanwhile.",
    ),
    Note(
        "when it raised",
        lambda history, fault: fault.name == "acked when raised",
        "An acknowledgement says that the work is done. Work that raised is not, so it must stay unacknowledged, to be"
        " done again.",
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
