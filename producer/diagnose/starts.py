"""Confusions about how processes start: the guard, functions without a name, daemons, forks beside threads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from producer.diagnose.finding import Finding, at, found
from producer.diagnose.things import Function, Thing, constant, parameters
from producer.diagnose.walk import LOCKS, STARTS, Program, Step

WAITS = frozenset(
    {
        "join",
        "get",
        "recv",
        "recv_bytes",
        "wait",
        "wait_for",
        "acquire",
        "result",
        "shutdown",
        "serve_forever",
        "accept",
        "map",
        "starmap",
        "apply",
        "poll",
        "is_alive",
        "sleep",
        "pause",
        "input",
        "run_forever",
        "waitpid",
        "communicate",
        "mainloop",
        "run_until_complete",
        "select",
    }
)
SENT_ONCE = (*LOCKS, "event", "barrier", "queue", "value", "array")


def look(program: Program) -> Iterator[Finding]:
    """Everything of this kind that a script has."""
    yield from unguarded(program)
    yield from nameless(program)
    yield from called_here(program)
    yield from unsendable(program)
    yield from nested(program)
    yield from beside_threads(program)
    yield from daemons(program)


def starts(step: Step, kinds: tuple[str, ...] = ("pool", "manager")) -> bool:
    """Whether a step starts processes as multiprocessing does; what is of these kinds does when it is made."""
    made = step.what == "make" and any(t.kind in kinds and t.home == "processes" for t in step.things)
    asked = step.what in ("submit", "map") and step.to("executor", "processes")
    return made or bool(asked) or (step.what == "start" and bool(step.to("process")))


def forks(step: Step) -> bool:
    """Whether a step is ``os.fork()``."""
    called = step.node.func if step.what in ("call", "fork") and isinstance(step.node, ast.Call) else None
    return called is not None and ast.unparse(called) in ("os.fork", "fork")


def unguarded(program: Program) -> Iterator[Finding]:
    """A process is started whenever the file is run, by the child too."""
    if program.method() == "fork":
        return
    for step in program.main:
        if not step.guarded and starts(step, ("pool", "manager", "executor")):
            node = step.path[0] if step.path else step.node
            yield found(
                "main_guard",
                node,
                "A child runs this file again to find its function, comes to this line, and would start a child as"
                " well:"
                ' put it under if __name__ == "__main__":.',
                sure=True,
            )
            return


def nameless(program: Program) -> Iterator[Finding]:
    """A lambda, or a function within a function, that another process is to find by its name."""
    script = program.script
    for worker in program.of_processes():
        forked = program.method() == "fork" and (worker.how == "process" or worker.initializes)
        function = worker.function.node
        inner = any(isinstance(up, (ast.FunctionDef, ast.AsyncFunctionDef)) for up in script.above(function))
        method = worker.function.kind == "bound"
        if forked or not (isinstance(function, ast.Lambda) or (inner and not method)):
            continue
        name = (
            "A lambda has no name"
            if isinstance(function, ast.Lambda)
            else f"{worker_name(function)!r} is inside of a function"
        )
        where = (
            ""
            if worker.how != "process" and not worker.initializes
            else " (fork alone, which copies its parent, does without)"
        )
        yield found(
            "lambda", worker.node, f"{name}, so no other process can find it when it is sent by name{where}.", sure=True
        )


def called_here(program: Program) -> Iterator[Finding]:
    """``target=work()``: it is called in this process, and what it returns is the target."""
    script = program.script
    for step in program.main:
        if not isinstance(step.node, ast.Call) or step.what not in ("make", *STARTS):
            continue
        if not any(t.kind in ("process", "thread", "pool", "executor") for t in step.things):
            continue
        for target, *_ in script.handed_over(step.node, script.scopes[step.node], step.env):
            if isinstance(target, ast.Call) and not script.things(target, None, step.env):
                called = script.things(target.func, None, step.env)
                if called and all(t.kind in ("function", "bound") for t in called):
                    yield found(
                        "called_here",
                        target,
                        f"{ast.unparse(target)} is called here and now, and what it returns is handed over: leave"
                        " out the"
                        " brackets, and give the arguments with args=.",
                        sure=True,
                    )


def unsendable(program: Program) -> Iterator[Finding]:
    """A lock or a queue as an argument of a pool's call; these travel only when a process is started."""
    script = program.script
    for step in program.everyone():
        pools = step.to("pool", "processes") | step.to("executor", "processes")
        if step.what not in STARTS or not pools or not isinstance(step.node, ast.Call):
            continue
        for _, args, keywords, of_elements in script.handed_over(step.node, script.scopes[step.node], step.env):
            things: set[Thing] = set()
            for arg in [*args, *(keyword.value for keyword in keywords)]:
                given = script.things(arg, None if arg in script.scopes else script.scopes[step.node], step.env)
                things |= script.elements(given) if of_elements or isinstance(arg, ast.Starred) else given
            for thing in sorted(
                (t for t in things if t.kind in SENT_ONCE and t.home == "processes"), key=lambda t: at(t.node)
            )[:1]:
                yield found(
                    "unsendable",
                    step.node,
                    f"The {thing.kind} of line {at(thing.node)} goes with a call, and that raises: it travels only"
                    " when a process"
                    " is started (Pool(initializer=, initargs=)), or as a manager's.",
                    sure=True,
                )


def is_daemon(program: Program, thing: Thing) -> bool:
    """Whether a process or thread is made a daemon."""
    if isinstance(thing.node, ast.Call) and any(
        k.arg == "daemon" and constant(k.value) is True for k in thing.node.keywords
    ):
        return True
    cls = thing.of.node if thing.of is not None and thing.of.kind == "class" else None
    if cls is not None:
        for part in ast.walk(cls):
            if isinstance(part, ast.keyword) and part.arg == "daemon" and constant(part.value) is True:
                return True
            if (
                isinstance(part, ast.Assign)
                and constant(part.value) is True
                and ast.unparse(part.targets[0]) == "self.daemon"
            ):
                return True
    for step in program.main:
        if step.what == "write" and thing in step.things and isinstance(step.node, ast.Assign):
            for target in step.node.targets:
                if isinstance(target, ast.Attribute) and target.attr == "daemon" and constant(step.node.value) is True:
                    return True
    return False


def nested(program: Program) -> Iterator[Finding]:
    """A worker of a pool, or a daemon, that starts processes."""
    for worker in program.of_processes():
        daemonic = worker.how == "pool" or (worker.how == "process" and is_daemon(program, worker.by))
        if not daemonic:
            continue
        for step in worker.steps:
            if starts(step):
                who = "A pool's workers are daemonic" if worker.how == "pool" else "This runs in a daemonic process"
                yield found(
                    "nested",
                    step.node,
                    f"{who}, and daemonic processes are not allowed to have children: this raises.",
                    sure=True,
                )
                break


def beside_threads(program: Program) -> Iterator[Finding]:
    """A fork while other threads run: what they hold stays held in the child for ever."""
    method = program.method()
    if method not in ("", "fork"):
        return
    why = "the child has a copy of every lock, and not the threads that would give them back"
    when = "" if method == "fork" else " under fork (the default on Linux before Python 3.14)"
    steps = program.main
    running: dict[Thing, Step] = {}
    for step in steps:
        if step.what == "start":
            running |= dict.fromkeys(step.to("thread"), step)
        elif step.what in ("submit", "map"):
            running |= dict.fromkeys(step.to("executor", "threads"), step)
        elif step.what == "make":
            running |= dict.fromkeys(step.to("pool", "threads"), step)
        elif step.what in ("join", "__exit__", "shutdown", "cancel"):
            for thing in step.things:
                running.pop(thing, None)
        if running and (starts(step) or forks(step)):
            first = next(iter(running.values()))
            yield found(
                "fork_threads",
                step.node,
                f"The threads of line {at(first.node)} may still run when this forks{when}: {why}, so it may wait"
                " for ever.",
                sure=False,
            )
            return
    for worker in program.workers:
        if worker.how == "thread" or (worker.how in ("pool", "executor") and worker.home == "threads"):
            for step in worker.steps:
                if starts(step) or forks(step):
                    yield found(
                        "fork_threads",
                        step.node,
                        f"This forks from a thread, beside others{when}: {why}, so it may wait for ever.",
                    )
                    return


def daemons(program: Program) -> Iterator[Finding]:
    """A daemon is ended with the program, and nobody waits for it."""
    for number, step in enumerate(program.main):
        if step.what != "start" or any(isinstance(loop, ast.While) for loop in step.loops):
            continue
        for thing in sorted(step.to("process") | step.to("thread"), key=lambda t: at(t.node)):
            after = program.main[number + 1 :]
            if is_daemon(program, thing) and not any(map(_waits, after)):
                yield found(
                    "daemon_lost",
                    step.node,
                    f"This {thing.kind} is a daemon and nobody waits for it, so it is ended with the program,"
                    " wherever it is then.",
                )


def _waits(step: Step) -> bool:
    names = {step.what}
    if isinstance(step.node, ast.Call):
        names.add(ast.unparse(step.node.func).rpartition(".")[2])
    if step.what == "__exit__" and any(t.kind in ("pool", "executor", "process") for t in step.things):
        return True
    return bool(names & WAITS)


def required(function: Function) -> tuple[int, int]:
    """How many positional arguments a function must have and may have."""
    args = function.args
    most = len(args.posonlyargs) + len(args.args)
    return most - len(args.defaults), 99 if args.vararg else most


def takes(worker_function: Thing, number: int) -> bool:
    """Whether a function can be called with so many arguments."""
    function = worker_function.node
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return True
    least, most = required(function)
    bound = worker_function.kind == "bound"
    return least - bound <= number <= most - bound if parameters(function) or number else number == 0


def worker_name(function: ast.AST) -> str:
    """What a function is called."""
    return str(getattr(function, "name", ""))
