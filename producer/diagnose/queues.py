"""Confusions about queues and pipes: join before get, the momentary size, an end that stays open."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from producer.diagnose.finding import Finding, at, found
from producer.diagnose.things import Script, Thing, constant
from producer.diagnose.walk import Program, Step, Worker, gives_up, leaves

TAKES = ("get", "get_nowait")
SIZES = ("empty", "qsize", "full")


def look(program: Program) -> Iterator[Finding]:
    """Everything of this kind that a script has."""
    yield from join_first(program)
    yield from momentary(program)
    yield from open_ends(program)


def join_first(program: Program) -> Iterator[Finding]:
    """The end of a process is waited for before its queue is read, and it does not end before that is read."""
    main, told = program.main, set()
    for worker in program.workers:
        if worker.how != "process":
            continue
        for queue in {t for step in worker.steps if step.what == "put" for t in step.to("queue", "processes")}:
            if any(
                step.what in ("cancel_join_thread", "join_thread") and queue in step.things for step in worker.steps
            ):
                continue
            readers = [other for other in program.workers if other is not worker and _takes(other.steps, queue)]
            join = next((n for n, step in enumerate(main) if step.what == "join" and worker.by in step.things), None)
            gets = [n for n, step in enumerate(main) if step.what in TAKES and queue in step.things]
            if readers or join is None or not gets or min(gets) < join or queue in told:
                continue
            told.add(queue)
            yield found(
                "join_first",
                main[join].node,
                f"This waits for the process to end, which ends when its queue has been read, and that is read in line"
                f" {at(main[min(gets)].node)}: fine when small, a deadlock when large. First get, then join.",
                sure=False,
            )


def _takes(steps: list[Step], queue: Thing) -> bool:
    return any(step.what in TAKES and queue in step.things for step in steps)


def momentary(program: Program) -> Iterator[Finding]:
    """``empty()``, ``qsize()``, or ``get_nowait()`` and its Empty, decide what is done next."""
    script, told = program.script, set()
    for worker, steps in program.actors:
        for number, step in enumerate(steps):
            if step.node in told:
                continue
            queues = {t for t in step.to("queue") if t.home == "processes" or _drained_by_many(worker, t)}
            if not queues or (worker is None and _all_joined(program, steps[:number], queues)):
                continue
            if step.what in SIZES and _decides(script, step.node):
                told.add(step.node)
                yield found(
                    "empty",
                    step.node,
                    f"{step.what}() says how it was a moment ago, and right after a put() it may say so of nothing:"
                    " the end of work should be an"
                    " item of its own.",
                    sure=False,
                )
            elif step.what in TAKES and _until_empty(script, step):
                told.add(step.node)
                yield found(
                    "empty",
                    step.node,
                    "Empty is taken for the end here, but right after a put() a queue may be empty for a moment:"
                    " the end of work should be an"
                    " item of its own.",
                    sure=False,
                )


def _drained_by_many(worker: Worker | None, queue: Thing) -> bool:
    """A queue of threads or a manager tells the truth, but who of several gets the last item is open."""
    blocking = (
        worker is not None
        and worker.many
        and any(
            step.what == "get"
            and queue in step.things
            and not (isinstance(step.node, ast.Call) and gives_up(step.node))
            for step in worker.steps
        )
    )
    return blocking and any(step.what in SIZES and queue in step.things for step in (worker.steps if worker else []))


def _all_joined(program: Program, before: list[Step], queues: set[Thing]) -> bool:
    """Whether all who put into a queue have ended: then its size holds still."""
    writers = [worker.by for worker in program.workers if _puts(worker.steps, queues)]
    joined = {thing for step in before if step.what == "join" for thing in step.things}
    return bool(writers) and joined.issuperset(writers) and not _puts(before, queues)


def _puts(steps: list[Step], queues: set[Thing]) -> bool:
    return any(step.what == "put" and step.things & queues for step in steps)


def _decides(script: Script, node: ast.AST) -> bool:
    for below, up in script.around(node):
        if isinstance(up, (ast.While, ast.If, ast.IfExp, ast.Assert)):
            return below is up.test
        if isinstance(up, (ast.For, ast.AsyncFor)):
            return below is up.iter
        if isinstance(up, ast.comprehension):
            return True
        if isinstance(up, ast.Call) and getattr(up.func, "id", "") in ("print", "format", "str"):
            return False
        if isinstance(up, ast.stmt):
            return isinstance(up, ast.Assign) and _named_decides(script, up)
    return False


def _named_decides(script: Script, assign: ast.Assign) -> bool:
    """Whether a name that was given a size decides something in the same function."""
    names = {target.id for target in assign.targets if isinstance(target, ast.Name)}
    scope = script.scopes[assign].node
    for part in ast.walk(scope):
        tests = (
            [part.test] if isinstance(part, (ast.While, ast.If)) else [part.iter] if isinstance(part, ast.For) else []
        )
        if any(isinstance(name, ast.Name) and name.id in names for test in tests for name in ast.walk(test)):
            return True
    return False


def _until_empty(script: Script, step: Step) -> bool:
    """``while True: try: get_nowait() except Empty: break``."""
    node = step.node
    named = {k.arg: k.value for k in node.keywords} if isinstance(node, ast.Call) else {}
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    at_once = (
        step.what == "get_nowait"
        or constant(named.get("block") or first) is False
        or constant(named.get("timeout")) == 0
    )
    if not at_once:
        return False
    for below, up in script.around(node):
        if isinstance(up, ast.Try) and below in up.body:
            return any(
                handler.type is not None
                and "Empty" in ast.unparse(handler.type)
                and leaves(handler.body)
                and isinstance(handler.body[-1], (ast.Break, ast.Return))
                for handler in up.handlers
            )
    return False


# pipes


def open_ends(program: Program) -> Iterator[Finding]:
    """A reader waits for the end of file, and somebody who does not write has the other end open."""
    told: set[Thing] = set()
    for worker, steps in program.actors:
        for step in steps:
            if step.what not in ("recv", "recv_bytes", "recv_bytes_into") or not _until_end(program.script, step.node):
                continue
            for end in step.to("connection", "processes"):
                other = next(iter(program.script.inside[end.of, "[]"] - {end}), None) if end.of else None
                if other is None or end.of in told:
                    continue
                if problem := _left_open(program, worker, step, other):
                    told.add(end.of)  # type: ignore[arg-type]
                    yield found("pipe_end", problem[0], problem[1], sure=problem[2])


def _until_end(script: Script, node: ast.AST) -> bool:
    for below, up in script.around(node):
        handlers = up.handlers if isinstance(up, ast.Try) and below in up.body else []
        if any(handler.type is None or "EOFError" in ast.unparse(handler.type) for handler in handlers):
            return True
        if isinstance(up, (ast.With, ast.AsyncWith)) and any("EOFError" in ast.unparse(item) for item in up.items):
            return True
    return False


def _left_open(program: Program, reader: Worker | None, step: Step, other: Thing) -> tuple[ast.AST, str, bool] | None:
    main = program.main
    closed = [n for n, each in enumerate(main) if each.what in ("close", "__exit__", "delete") and other in each.things]
    if not closed:
        return step.node, (
            f"This waits for the end of file, which comes when the other end (of line {at(other.node)}) is closed"
            " everywhere: the main"
            " process has it open too, and never closes it."
        ), True  # fmt: skip
    if reader is None:
        return None
    joined = [
        n for n, each in enumerate(main) if each.what == "join" and reader.by in each.things and not _bounded(each.node)
    ]
    if joined and min(joined) < min(closed):
        return main[min(joined)].node, (
            f"This waits for a process that waits for the end of file, and that comes with the close() of line"
            f" {at(main[min(closed)].node)}, which comes only after this."
        ), True  # fmt: skip
    closes = any(each.what in ("close", "__exit__") and other in each.things for each in reader.steps)
    if not closes and program.method() in ("", "fork") and reader.how == "process":
        when = (
            "A forked reader"
            if program.method() == "fork"
            else "Under fork (the default on Linux before Python 3.14) the reader"
        )
        return step.node, (
            f"{when} has inherited the other end (of line {at(other.node)}) as well, and does not close it: then"
            " the end of file may never come."
        ), False  # fmt: skip
    return None


def _bounded(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(node.args or node.keywords)
