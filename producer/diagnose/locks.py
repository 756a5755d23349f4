"""Confusions about waiting for each other: two orders of locks, and a wait that does not look again."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from producer.diagnose.finding import Finding, at, found
from producer.diagnose.sharing import made_by, one_after_the_other
from producer.diagnose.things import Thing, constant
from producer.diagnose.walk import Program, Step, Worker

Edge = tuple[Thing, Thing]
ORDERS = frozenset({"sorted", "min", "max", "id"})


def look(program: Program) -> Iterator[Finding]:
    """Everything of this kind that a script has."""
    yield from two_orders(program)
    yield from not_again(program)


def two_orders(program: Program) -> Iterator[Finding]:
    """Who holds one lock and waits for another, while somebody holds that and waits for the first."""
    edges: dict[Edge, list[tuple[Worker | None, Step]]] = {}
    actors: list[tuple[Worker | None, list[Step]]] = [(worker, worker.steps) for worker in program.workers]
    actors.append((None, program.main if program.workers else []))
    for worker, steps in actors:
        for step in steps:
            if step.what == "acquire" and not step.polite:
                yield from _taken_twice(program, step)
                for edge in _edges(program, step):
                    edges.setdefault(edge, []).append((worker, step))
    told: set[frozenset[Thing]] = set()
    for (first, second), takers in sorted(edges.items(), key=lambda item: at(item[1][0][1].node)):
        if first is second:
            worker, step = takers[0]
            together = len({id(each) for each, _ in takers}) > 1 or (worker is not None and worker.many)
            if worker is not None and together and not _put_in_order(program, worker):
                yield found(
                    "two_locks",
                    step.node,
                    f"Each worker holds one of the locks of line {at(first.node)} and waits for another one of"
                    " them: if they go round in a circle, all may wait for ever. Take them in one order, such as by their"
                    " number.",
                )
            continue
        back = _way_back(edges, second, first)
        names = frozenset((first, second))
        if not back or names in told or not _may_meet(program, takers, back):
            continue
        told.add(names)
        step, other = takers[0][1], back[0][1]
        yield found(
            "two_locks",
            step.node,
            f"Here the lock of line {at(second.node)} is waited for with that of line {at(first.node)} held, and in"
            f" line {at(other.node)} it is the other way round: two who come at once wait for each other for ever.",
            sure=True,
        )


def _edges(program: Program, step: Step) -> Iterator[Edge]:
    if len(step.things) != 1:
        return
    wanted = next(iter(step.things))
    for held in step.held:
        if held is not wanted or (several(program, wanted) and not _may_be_held(program, wanted)):
            yield held, wanted


def several(program: Program, thing: Thing) -> bool:
    """Whether a thing stands for several: it is made in a loop, or by a class of which there are several objects."""
    if thing.many:
        return True
    above = program.script.above(thing.node)
    cls = next((program.script.thing("class", up) for up in above if isinstance(up, ast.ClassDef)), None)
    objects = [
        each for each in program.script.made() if each.of is cls and each.kind in ("instance", "process", "thread")
    ]
    return cls is not None and (len(objects) > 1 or any(each.many for each in objects))


def _may_be_held(program: Program, thing: Thing) -> bool:
    """Whether who holds a lock may take it again."""
    return not (
        isinstance(thing.node, ast.Call) and program.script.full_name(thing.node).endswith((".Lock", ".Semaphore"))
    )


def _taken_twice(program: Program, step: Step) -> Iterator[Finding]:
    """A lock that is no RLock, by who holds it already."""
    thing = next(iter(step.things))
    if len(step.things) != 1 or thing not in step.held or thing.kind != "lock" or several(program, thing):
        return
    if not _may_be_held(program, thing):
        yield found(
            "two_locks",
            step.node,
            f"The lock of line {at(thing.node)} is held already, by this very process, which so waits for"
            " itself for ever: use RLock, or take it once.",
            sure=True,
        )


def _way_back(
    edges: dict[Edge, list[tuple[Worker | None, Step]]], start: Thing, end: Thing
) -> list[tuple[Worker | None, Step]]:
    """The takers of the first edge of a way from one lock to another."""
    frontier: list[tuple[Thing, list[tuple[Worker | None, Step]]]] = [(start, [])]
    seen = {start}
    while frontier:
        here, way = frontier.pop(0)
        for (first, second), takers in edges.items():
            if first is here:
                whole = way or takers
                if second is end:
                    return whole
                if second not in seen:
                    seen.add(second)
                    frontier.append((second, whole))
    return []


def _may_meet(program: Program, one: list[tuple[Worker | None, Step]], other: list[tuple[Worker | None, Step]]) -> bool:
    for first, a in one:
        for second, b in other:
            if any(not gate.many for gate in (a.held & b.held) - a.things - b.things):
                continue
            if first is not second or (first is not None and first.many and not one_after_the_other(program, first)):
                return True
    return False


def _put_in_order(program: Program, worker: Worker) -> bool:
    """Whether a worker, or who starts it, seems to choose an order, or lets in less than all."""
    above = list(program.script.above(worker.node))
    for place in [worker.function.node, *above[:4]]:
        if isinstance(place, ast.Module) or (isinstance(place, ast.If) and _main(place)):
            continue
        for part in ast.walk(place):
            if isinstance(part, ast.Call) and getattr(part.func, "id", "") in ORDERS:
                return True
            if isinstance(part, (ast.If, ast.IfExp)) and place is worker.function.node:
                return True
            if isinstance(part, (ast.If, ast.IfExp)) and any(
                isinstance(p, (ast.Assign, ast.Tuple)) for p in ast.walk(part)
            ):
                return True
    held = {thing for step in worker.steps if step.what == "acquire" for thing in step.held}
    return any(not several(program, thing) for thing in held)


# conditions


def not_again(program: Program) -> Iterator[Finding]:
    """``if`` in place of ``while`` around ``condition.wait()``."""
    script, told = program.script, set()
    for _, steps in program.actors:
        for step in steps:
            if step.what != "wait" or not step.to("condition") or step.node in told:
                continue
            told.add(step.node)
            form = _around(program, step.node)
            if form == "if":
                yield found(
                    "condition",
                    step.node,
                    "When this wait ends, what it was for may be gone again, and `if` does not look again: write"
                    " `while`, or"
                    " condition.wait_for(...).",
                    sure=True,
                )
            elif form == "nothing" and not made_by(script, next(iter(step.to("condition"))), []):
                yield found(
                    "condition",
                    step.node,
                    "This waits without looking whether there is something to wait for: a notify that came before"
                    " is lost. Wait in a"
                    " `while not ...:`, or with condition.wait_for(...).",
                )


def _around(program: Program, node: ast.AST) -> str:
    """What stands around a wait, up to the ``with`` of its condition or its function: ``while``, ``if`` or ``nothing``."""
    form, inside = "nothing", True
    for below, up in program.script.around(node):
        if isinstance(up, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)):
            break
        if isinstance(up, ast.If) and below is not up.test and inside and not _main(up):
            form = "if" if form == "nothing" else form
        elif isinstance(up, (ast.If, ast.While, ast.Assert)) and below is getattr(up, "test", None):
            return "while"  # what it returned is looked at
        elif isinstance(up, ast.While) and (inside or constant(up.test) is None):
            return "while"
        elif isinstance(up, ast.With):
            inside = False
        elif isinstance(up, (ast.Assign, ast.Return, ast.NamedExpr)):
            return "while"
    return form


def _main(node: ast.If) -> bool:
    return "__name__" in ast.unparse(node.test)
