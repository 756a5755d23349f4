"""What may be claimed of a history; each claim yields what went wrong, in one sentence with the line."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lab.explored.operation import lost
from producer.exercise.history import History, Op

PRIMITIVES = (
    "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier", "Value", "Array", "RawValue",
    "RawArray", "Queue", "SimpleQueue", "JoinableQueue", "Pipe", "Manager", "Pool",
)  # fmt: skip
"""What processes share, if it is handed to them."""
NOT_READ = "not what was read"
LATE = 1 << 40
"""Where in the order something stands that never happened."""


@dataclass(frozen=True)
class Fault:
    """Something that went wrong.

    Attributes:
        name: For the notes.
        text: What went wrong, in one sentence.
        line: Of the program; 0 if there is none.
        at: Number of the operation; ``LATE`` of what never happened.
    """

    name: str
    text: str
    line: int = 0
    at: int = LATE

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True)
class Note:
    """What is said of a usual wrong answer.

    Attributes:
        name: By which the tests know it.
        fits: Whether a run that went wrong is one of this answer.
        says: The note.
    """

    name: str
    fits: Callable[[History, Fault], Any]
    says: str


def lost_writes(history: History) -> Iterator[Fault]:
    """Nobody writes over what was written since he read."""
    if not history.ordered:
        return
    for _, before, at in lost((op.worker, op.does, (op.on, op.part)) for op in history.ops):
        op, last = history.ops[at], history.ops[before]
        yield Fault(
            "lost write",
            f"{op.worker} writes {named(op)} from what it read before {last.worker} wrote it at line {last.line};"
            " that change is lost",
            op.line,
            op.at,
        )


def each_does(
    history: History, workers: int, least: int, *does: str, kind: str, what: str, on: str = ""
) -> Iterator[Fault]:
    """So many workers were started, and each did something so often at least.

    Args:
        history: The run.
        workers: How many.
        least: How often.
        does: The words for it.
        kind: What it is done to.
        what: In words, as in ``{worker} never adds to the counter``.
        on: To which thing of that kind, if not to any.
    """
    if history.started < workers:
        yield Fault(
            "not started",
            f"{history.started or 'no'} process{'es' if history.started != 1 else ''} started where {workers} should be:"
            " nobody does the work",
            line_of_last_print(history.source),
        )
        return
    for number in range(1, workers + 1):
        worker = f"Process-{number}"
        count = sum(1 for _ in history.of(*does, kind=kind, worker=worker, on=on))
        if count < least:
            begun = next((op.line for op in history.of("start") if op.on == worker), 0)
            often = "never" if not count else f"only {count} of {least} times"
            yield Fault("less work" if count else "no work", f"{worker}, which is started here, {often} {what}", begun)


def shared(history: History, kind: str) -> str:
    """What the main process has made of a kind and the others write most, as the history calls it; empty if there is none."""
    mine = {one.on for one in history.made if one.kind == kind and one.by == "main"}
    written = Counter(op.on for op in history.of("write", kind=kind, others=True) if op.on in mine)
    return written.most_common(1)[0][0] if written else ""


def printed_is_read(history: History, on: str, expected: str = "") -> Iterator[Fault]:
    """What is printed was read by the main process from what all share, after the last of the others has written it."""
    read = next(iter(reversed(list(history.of("read", on=on, worker="main")))), None) if on else None
    line = line_of_last_print(history.source)
    if read is None:
        yield Fault("constant", "what is printed here was not read from what the processes share", line)
    elif expected and isinstance(read.result, (int, float)) and str(read.result) != expected:
        yield Fault(NOT_READ, f"{expected} is printed here, and {read.result} is what was read", line)


def never_by_main(history: History, *does: str, kind: str, what: str) -> Iterator[Fault]:
    """The main process leaves something to the others."""
    text = f"the main process {what}, which is the others' work"
    yield from never(history, *does, kind=kind, worker="main", name="main does it", text=text)


def never(history: History, *does: str, kind: str = "", worker: str = "", name: str, text: str) -> Iterator[Fault]:
    """Nobody does this, or one worker does not.

    Args:
        history: The run.
        does: The words for it.
        kind: What it would be done to, if not anything.
        worker: Who does not; empty for all.
        name: Of the fault.
        text: Of the fault, with ``{op.worker}`` and ``{op.on}`` for who has done it, and to what.
    """
    op = next(history.of(*does, kind=kind, worker=worker), None)
    if op is not None:
        yield Fault(name, text.format(op=op), op.line, op.at)


def all_at_once(history: History) -> Iterator[Fault]:
    """The main process waits for nobody before all are started."""
    last = max((op.at for op in history.of("start")), default=0)
    op = next((op for op in history.of("join", worker="main") if op.at < last), None)
    if op is not None:
        yield Fault("in a row", f"the main process waits for {op.on} before all are started", op.line, op.at)


def no_timeout(history: History, does: str, least: int = 1, *, first: str) -> Iterator[Fault]:
    """No call of a method is given a time, after which it returns whether or not what it waits for has come.

    Args:
        history: The run.
        does: The method.
        least: With so many arguments it has one.
        first: The word of the operation that it is.
    """
    for call in _calls(history.source):
        if getattr(call.func, "attr", "") != does or not _timed(call, least):
            continue
        op = next((op for op in history.of(first) if op.line == call.lineno), None)
        if op is not None:
            yield Fault(
                "by time",
                f"{does}() returns here after a time, whether what it waits for has come or not",
                op.line,
                op.at,
            )
            return


def no_asking(history: History, most: int, *does: str, kind: str, what: str) -> Iterator[Fault]:
    """Nobody asks for the same thing again and again, with nothing done between."""
    count: dict[tuple[str, str, int], int] = {}
    for op in history.of(*does, kind=kind):
        key = op.worker, op.on, op.line
        count[key] = count.get(key, 0) + 1
        if count[key] > most:
            yield Fault(
                "asks again and again", f"{op.worker} {what} again and again in place of waiting", op.line, op.at
            )
            return


def at_the_top(source: str) -> Fault | None:
    """A primitive that is made at the top of the file, and so by each process anew.

    Nobody sees it in an exploration, whose processes share their globals, and seldom where they fork.
    """
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) or "__main__" in ast.dump(node):
            continue
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and (name := _called(call)) in PRIMITIVES:
                return Fault(
                    "at the top",
                    f"the {name} made here, at the top of the file, is another one in each process",
                    call.lineno,
                )
    return None


def not_looked(source: str) -> Fault | None:
    """An ``acquire`` that may return without what it is for, after which all goes on as if it had got it."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for scope in [*functions, tree]:
        for block in _blocks(scope):
            for at, statement in enumerate(block):
                if _unheeded(statement, block[at + 1 :], scope):
                    text = "acquire() may return here without what it is for, and what follows is done all the same"
                    return Fault("not looked", text, statement.lineno)
    return None


def _blocks(scope: ast.AST) -> Iterator[list[ast.stmt]]:
    """Statements that follow each other, from the outer ones to the inner ones."""
    for node in ast.walk(scope):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(node, name, None), list):
                yield block


def _unheeded(statement: ast.stmt, after: list[ast.stmt], scope: ast.AST) -> bool:
    """Whether a statement asks for a lock that it may not get, and it makes no difference whether it did."""
    match statement:
        case ast.Expr(value=asked):
            return _may_fail(asked)
        case ast.Assign(targets=[ast.Name(id=name)], value=asked):
            return _may_fail(asked) and not _read(name, scope)
        case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=asked), body=failed, orelse=got):
            return _may_fail(asked) and _goes_on(failed) and _goes_on(got) and _works(after)
        case ast.If(test=asked, body=got, orelse=failed):
            return _may_fail(asked) and _goes_on(failed) and _goes_on(got) and _works(after)
    return False


def _read(name: str, scope: ast.AST) -> bool:
    """Whether a name is looked at, for more than to give something back: ``if got: lock.release()``."""
    gives_back = {
        node.test
        for node in ast.walk(scope)
        if isinstance(node, ast.If) and not node.orelse and all(_releases(each) for each in node.body)
    }
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) and node not in gives_back
        for node in ast.walk(scope)
    )


def _goes_on(block: list[ast.stmt]) -> bool:
    """Whether what follows a block comes after it. Excluded: it leaves, or asks once more."""
    asks = any(isinstance(node, ast.Call) and _called(node) == "acquire" for each in block for node in ast.walk(each))
    return not asks and not (block and isinstance(block[-1], (ast.Return, ast.Continue, ast.Break, ast.Raise)))


def _works(block: list[ast.stmt]) -> bool:
    """Whether statements write to what is shared, or give a lock back, whatever was found before. Excluded: under an if."""
    for each in block:
        if isinstance(each, (ast.With, ast.For, ast.Try)) and _works(each.body):
            return True
        if _releases(each) or (isinstance(each, (ast.Assign, ast.AugAssign)) and _writes(each)):
            return True
    return False


def _releases(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and _called(statement.value) == "release"
    )


def _writes(statement: ast.Assign | ast.AugAssign) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)


def _may_fail(asked: ast.expr) -> bool:
    """Whether an expression is an ``acquire`` that does not wait until it has got what it is for."""
    if not isinstance(asked, ast.Call) or _called(asked) != "acquire":
        return False
    given = [*asked.args[:1], *(word.value for word in asked.keywords if word.arg in ("block", "blocking"))]
    return _timed(asked, 2) or any(isinstance(each, ast.Constant) and not each.value for each in given)


@lru_cache(maxsize=8)
def _calls(source: str) -> tuple[ast.Call, ...]:
    """The calls in a program, which is the same in all the runs that are graded."""
    return tuple(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))


def _timed(call: ast.Call, least: int) -> bool:
    """Whether a call is given a time: by name, or as one of so many arguments."""
    return len(call.args) >= least or any(word.arg == "timeout" for word in call.keywords)


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", "") or getattr(call.func, "id", ""))


def in_circle(fault: Fault, on: str = "") -> bool:
    """Whether a deadlock is one in which each holds a thing of this name and waits for another one."""
    waits = fault.text.removeprefix("deadlock: ").split("; ") if fault.name == "deadlock" else []
    return len(waits) > 1 and all(f"waits for {on}" in each and f"holds {on}" in each for each in waits)


def named(op: Op) -> str:
    """What an operation was done to, with its part."""
    return op.on if op.part is None else f"{op.on}[{op.part}]"


def line_of_last_print(source: str) -> int:
    """Where a program prints last; 0 if it does not."""
    return max((call.lineno for call in _calls(source) if getattr(call.func, "id", "") == "print"), default=0)


def line_of(history: History, *called: str) -> int:
    """Where a program calls one of these first; 0 if it does not."""
    return min((call.lineno for call in _calls(history.source) if _called(call) in called), default=0)


def calls(source: str, *names: str) -> bool:
    """Whether a program calls one of these functions or methods, by name."""
    return any(_called(call) in names for call in _calls(source))
