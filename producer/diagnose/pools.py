"""Confusions about pools and executors: results nobody fetches, callbacks that raise, tasks that wait for their own pool."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from producer.diagnose.finding import Finding, found
from producer.diagnose.starts import takes
from producer.diagnose.things import Script, Thing
from producer.diagnose.walk import STARTS, Program, Step, alone

FETCHES = frozenset({"get", "result", "exception", "successful", "add_done_callback"})
HARMLESS = frozenset(
    {
        "print",
        "len",
        "range",
        "str",
        "repr",
        "sleep",
        "put",
        "append",
        "getpid",
        "current_process",
        "format",
        "getppid",
        "perf_counter",
        "time",
        "monotonic",
        "current_thread",
        "flush",
        "info",
        "debug",
        "strftime",
        "enumerate",
        "acquire",
        "release",
        "get_lock",
        "set",
        "join",
        "get_ident",
        "add",
        "list",
        "tuple",
        "dict",
        "sum",
        "min",
        "max",
        "abs",
        "round",
        "isinstance",
        "sorted",
        "uniform",
        "random",
        "randint",
    }
)
KEEP = frozenset(
    {
        "append",
        "add",
        "print",
        "len",
        "wait",
        "put",
        "extend",
        "insert",
        "repr",
        "str",
        "type",
        "id",
        "Thread",
        "Process",
    }
)
PASSES_ON = frozenset({"as_completed", "list", "tuple", "enumerate", "zip", "set", "sorted", "reversed"})
ENDS = frozenset({"os._exit", "os.abort", "sys.exit", "exit", "quit", "signal.raise_signal"})


def look(program: Program) -> Iterator[Finding]:
    """Everything of this kind that a script has."""
    yield from not_fetched(program)
    yield from callbacks(program)
    yield from own_pool(program)
    yield from celery_tasks(program)
    yield from ended_inside(program)
    yield from one_by_one(program)


# results


def not_fetched(program: Program) -> Iterator[Finding]:
    """An exception of a call is in its result, and nobody asks for that."""
    script, told = program.script, set()
    fetched = {
        thing for step in program.everyone() if step.what in FETCHES for thing in step.things if thing.kind == "result"
    }
    open_question = any(step.what in FETCHES - {"get"} and not step.things for step in program.everyone()) or any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FETCHES
        and not node.args
        and not script.things(node.func.value)
        for node in ast.walk(script.tree)
    )
    for step in program.everyone():
        call = step.node
        if step.what not in STARTS or not isinstance(call, ast.Call) or call in told or not _pools(step):
            continue
        thrown_away = isinstance(script.parents.get(call), ast.Expr)
        if any(keyword.arg == "error_callback" for keyword in call.keywords) or not _may_raise(program, step, call):
            continue
        results = {t for t in script.things(call) if t.kind == "result"}
        late = any(t.kind == "iterator" for t in script.things(call))
        if (thrown_away and (results or late)) or (
            results and not results & fetched and not open_question and not any(_escapes(script, t) for t in results)
        ):
            told.add(call)
            what = "The results are thrown away" if late else "Nobody fetches this result"
            yield found(
                "vanish",
                call,
                f"{what}, so an exception that the call raises may vanish without a word: keep it, and"
                f" {'go through it' if late else 'call ' + ('.get()' if step.what != 'submit' else '.result()')}"
                f"{', or give an error_callback' if step.to('pool') and not late else ''}.",
                sure=False,
            )


def _pools(step: Step) -> set[Thing]:
    return step.to("pool") | step.to("executor")


def _escapes(script: Script, thing: Thing) -> bool:
    """Whether a result goes where it may be fetched out of sight."""
    nodes = list(ast.walk(script.tree))
    called = {t.node for node in nodes if isinstance(node, ast.Call) for t in script.things(node.func)}
    for node in nodes:
        if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None:
            given = [node.value]
            function = script.scopes[node].node
            if isinstance(function, ast.Module) or function in called:
                continue
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            known = {t.kind for t in script.things(node.func)} & {"function", "bound", "class"}
            if name in KEEP or name in PASSES_ON or known or name in STARTS:
                continue
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Await):
            given = [node.value]
        else:
            continue
        for each in given:
            things = script.things(each)
            if thing in things or thing in script.elements(things):
                return True
    return False


def _may_raise(program: Program, step: Step, call: ast.Call) -> bool:
    """Whether what is called may raise, as far as can be seen."""
    script = program.script
    for target, *_ in script.handed_over(call, script.scopes[call], step.env):
        things = script.things(target, script.scopes[call], step.env)
        if not things:
            name = script.dotted(target) or ast.unparse(target)
            return name.rpartition(".")[2] not in HARMLESS
        return any(
            raises(script, thing.of.node if thing.kind == "partial" and thing.of else thing.node) for thing in things
        )
    return False


def raises(script: Script, function: ast.AST, depth: int = 0) -> bool:
    """Whether a function may raise: it says so, or does what often does, outside of a ``try`` for all exceptions."""
    body = getattr(function, "body", [])
    for part in [p for statement in (body if isinstance(body, list) else [body]) for p in ast.walk(statement)]:
        risky = (
            isinstance(part, (ast.Raise, ast.Assert))
            or (
                isinstance(part, ast.BinOp)
                and isinstance(part.op, (ast.Div, ast.FloorDiv, ast.Mod))
                and (
                    isinstance(part.right, ast.Name)
                    or (
                        isinstance(part.right, (ast.Call, ast.BinOp, ast.Attribute))
                        and not isinstance(part.left, ast.Constant)
                    )
                )
            )
            or (isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Load))
        )
        if isinstance(part, ast.Call):
            called = {t for t in script.things(part.func) if t.kind in ("function", "bound")}
            name = getattr(part.func, "attr", getattr(part.func, "id", ""))
            risky = (
                any(raises(script, t.node, depth + 1) for t in called)
                if called and depth < 4
                else not called and name not in HARMLESS
            )
        if risky and not _caught(script, part, function):
            return True
    return False


def _caught(script: Script, node: ast.AST, function: ast.AST) -> bool:
    for below, up in script.around(node):
        if isinstance(up, ast.Try) and below in up.body:
            raised = getattr(node.exc, "func", node.exc) if isinstance(node, ast.Raise) else None
            caught = {"Exception", "BaseException", *([ast.unparse(raised)] if raised else [])}
            for handler in up.handlers:
                names = (
                    {ast.unparse(each) for each in getattr(handler.type, "elts", [handler.type])}
                    if handler.type
                    else caught
                )
                if names & caught:
                    return not any(isinstance(part, ast.Raise) for part in ast.walk(handler))
        if up is function:
            return False
    return False


def callbacks(program: Program) -> Iterator[Finding]:
    """A callback runs in the pool's own thread, which ends when it raises."""
    script, told = program.script, set()
    for step in program.everyone():
        if (
            step.what not in ("apply_async", "map_async", "starmap_async")
            or not step.to("pool")
            or not isinstance(step.node, ast.Call)
        ):
            continue
        for keyword in step.node.keywords:
            if keyword.arg not in ("callback", "error_callback"):
                continue
            for thing in script.things(keyword.value, None, step.env):
                if thing.kind not in ("function", "bound") or thing.node in told:
                    continue
                raised = next(
                    (
                        part
                        for part in ast.walk(thing.node)
                        if isinstance(part, (ast.Raise, ast.Assert)) and not _caught(script, part, thing.node)
                    ),
                    None,
                )
                if raised is not None or not takes(thing, 1):
                    told.add(thing.node)
                    why = "raises" if raised is not None else "cannot be called with the one result, which raises,"
                    yield found(
                        "callback",
                        raised or keyword.value,
                        f"This callback {why} in the thread of the pool that hands out results: that thread ends,"
                        " and every later call waits"
                        " for ever.",
                        sure=raised is None,
                    )


# tasks and their pool


def own_pool(program: Program) -> Iterator[Finding]:
    """A task asks its own pool for work and waits: when all workers do, nobody is left to do it."""
    told = set()
    for worker in program.workers:
        if worker.how not in ("pool", "executor") or worker.initializes:
            continue
        for step in worker.steps:
            asks = step.what in ("map", "apply", "starmap") and worker.by in step.things
            sends = step.what in STARTS and worker.by in step.things and worker.home == "processes"
            fetches = step.what in ("get", "result") and any(
                t.kind == "result" and t.of is worker.by for t in step.things
            )
            if (asks or sends or fetches) and step.node not in told:
                told.add(step.node)
                yield found(
                    "get_inside",
                    step.node,
                    "A task waits here for another task of its own pool, while it occupies a worker: when all"
                    " workers wait so, nobody is left"
                    " to do what they wait for.",
                    sure=worker.home == "threads",
                )
                break


def celery_tasks(program: Program) -> Iterator[Finding]:
    """``get()`` inside of a Celery task."""
    script = program.script
    for function in ast.walk(script.tree):
        if not isinstance(function, ast.FunctionDef) or not any(
            _is_task(decorator) for decorator in function.decorator_list
        ):
            continue
        sent = {
            target.id
            for part in ast.walk(function)
            if isinstance(part, ast.Assign) and _sends(part.value)
            for target in part.targets
            if isinstance(target, ast.Name)
        }
        for part in ast.walk(function):
            if (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Attribute)
                and part.func.attr in ("get", "join", "collect")
            ):
                receiver = part.func.value
                if _sends(receiver) or (isinstance(receiver, ast.Name) and receiver.id in sent):
                    yield found(
                        "get_inside",
                        part,
                        "A task waits here for another task, while it occupies a worker: when all workers wait so,"
                        " nobody is left to do what they"
                        " wait for. Use a chain or a chord.",
                        sure=True,
                    )


def _is_task(decorator: ast.expr) -> bool:
    name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return name.rpartition(".")[2] in ("task", "shared_task")


def _sends(node: ast.expr) -> bool:
    """``task.delay(...)``, ``task.apply_async(...)``, ``group(...)()``."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", "")
    group = isinstance(node.func, ast.Call) and getattr(node.func.func, "id", "") in ("group", "chord", "chain")
    return name in ("delay", "apply_async", "send_task") or group


def ended_inside(program: Program) -> Iterator[Finding]:
    """A call of a pool that ends its worker: its result never comes."""
    script = program.script
    told: set[ast.AST] = set()
    for worker in program.of_processes():
        if worker.how != "pool" or worker.initializes:
            continue
        for step in worker.steps:
            node = step.node
            if not isinstance(node, ast.Call) or node in told or step.what.startswith("."):
                continue
            name = script.dotted(node.func) or ast.unparse(node.func)
            kills = name == "os.kill" and node.args and ast.unparse(node.args[0]) in ("os.getpid()", "getpid()")
            if (name in ENDS or kills) and not any(isinstance(up, ast.ExceptHandler) for up in script.above(node)):
                told.add(node)
                yield found(
                    "loss",
                    node,
                    "This ends a worker of the pool in the middle of a call: the pool starts another worker, the"
                    " call is in nobody's hands, and"
                    " who waits for its result waits for ever.",
                    sure=True,
                )
        for function in {step.function for step in worker.steps} | {worker.function.node}:
            for part in ast.walk(function):
                if (
                    isinstance(part, ast.Raise)
                    and part.exc is not None
                    and "SystemExit" in ast.unparse(part.exc)
                    and part not in told
                ):
                    told.add(part)
                    yield found(
                        "loss",
                        part,
                        "SystemExit ends a worker of the pool in the middle of a call, whose result then never comes.",
                        sure=True,
                    )


def one_by_one(program: Program) -> Iterator[Finding]:
    """A loop that asks for one call, and waits for it, and asks for the next."""
    script, told = program.script, set()
    for step in program.main:
        call = step.node
        if not isinstance(call, ast.Call) or call in told or not step.loops:
            continue
        if any(isinstance(up, ast.ExceptHandler) for up in script.above(call)):
            continue  # it is done again, one by one
        if step.what == "apply" and any(alone(t) for t in step.to("pool")):
            continue
        if (
            step.what == "apply"
            and step.to("pool")
            and not any(_made_in(script, t, step.loops[-1]) for t in step.to("pool"))
        ):
            told.add(call)
            yield found(
                "one_by_one",
                call,
                "apply() waits for its result before the loop asks for the next call, so one worker works at a"
                " time: use map(), or"
                " apply_async() and fetch later.",
                sure=True,
            )
        elif (
            step.what in ("get", "result")
            and isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Call)
        ):
            asked = {t for t in step.things if t.kind == "result"}
            if (
                asked
                and all(t.node is call.func.value for t in asked)
                and not any(t.of and _made_in(script, t.of, step.loops[-1]) for t in asked)
            ):
                told.add(call)
                yield found(
                    "one_by_one",
                    call,
                    "The loop waits for each result before it asks for the next call, so one worker works at a"
                    " time: ask for all, then fetch.",
                    sure=True,
                )


def _made_in(script: Script, thing: Thing, loop: ast.AST) -> bool:
    return any(up is loop for up in script.above(thing.node))
