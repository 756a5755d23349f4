"""What each process and thread of a script does, one step after the other, and what it holds meanwhile.

A function is walked with what its caller gives it; what it calls is walked in place. Loops are gone through once, branches
one after the other. So a walk is one order of steps that may happen, not all of them: enough to ask what is held where, and
what comes before what.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from producer.diagnose.things import Env, Scope, Script, Thing, Things, Variable, constant

DEEPEST = 8
"""Calls within calls that are followed."""
MOST = 20_000
"""Steps after which a walk is broken off."""
LOCKS = ("lock", "semaphore", "condition")


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    Attributes:
        what: A method's name; or ``make``, ``acquire``, ``release``, ``read``, ``write``, ``update``, ``call``.
        things: To what.
        node: Where.
        held: The locks that are held meanwhile.
        loops: The loops it is in, of all functions it is called through.
        guarded: Whether it is under the main guard, or in a function that nobody in the script calls.
        function: The function it stands in, or the module.
        path: The calls that led there.
        env: What is known there of the variables.
        polite: Of an acquire, whether it gives up.
    """

    what: str
    things: frozenset[Thing]
    node: ast.AST
    held: frozenset[Thing]
    loops: tuple[ast.AST, ...]
    guarded: bool
    function: ast.AST
    path: tuple[ast.AST, ...]
    env: Env = field(repr=False)
    polite: bool = False

    def to(self, kind: str, home: str = "") -> Things:
        """Those of its things that are of a kind."""
        return {thing for thing in self.things if thing.kind == kind and home in ("", thing.home)}


@dataclass(frozen=True)
class Worker:
    """A process, thread or task that a script has started.

    Attributes:
        how: ``process``, ``thread``, ``pool`` or ``executor``.
        home: ``processes`` or ``threads``.
        function: What it runs, a function.
        by: The process, pool or executor.
        node: Where it is started or asked for.
        many: Whether there may be several at once.
        steps: What it does.
        initializes: Whether it is the initializer of a pool.
    """

    how: str
    home: str
    function: Thing
    by: Thing
    node: ast.AST
    many: bool
    steps: list[Step]
    initializes: bool = False


class Walk:
    """A walk through the steps of one process or thread.

    Args:
        script: The script.
        guarded: Whether its steps are under the main guard.
    """

    def __init__(self, script: Script, guarded: bool = True) -> None:
        self._script = script
        self.steps: list[Step] = []
        self._env: dict[Variable, Things] = {}
        self._held: list[Thing] = []
        self._loops: list[ast.AST] = []
        self._path: list[ast.AST] = []
        self._functions: list[ast.AST] = [script.tree]
        self._guarded = guarded
        self._branches = 0
        self._at_yield: list[Thing] = []
        """What was held where the last function yielded that was walked."""

    def module(self) -> list[Step]:
        """Walk the module."""
        for node in self._script.tree.body:
            self._statement(node)
            if not self._guarded and isinstance(node, ast.If) and names_main(node.test) and leaves(node.body):
                self._guarded = True  # who is not the main module has left
        return self.steps

    def function(self, thing: Thing, given: dict[Variable, Things]) -> list[Step]:
        """Walk a function with what its parameters are."""
        self._env.update(given)
        self._body(thing.node)
        return self.steps

    def _body(self, function: ast.AST) -> None:
        self._functions.append(function)
        if isinstance(function, ast.Lambda):
            self._expression(function.body)
        elif isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._statements(function.body)
        self._functions.pop()

    # statements

    def _statements(self, body: Iterable[ast.stmt]) -> None:
        for node in body:
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        guarded = self._guarded
        self._guarded = guarded or names_main(deciding(node))
        self._parts(node)
        self._guarded = guarded

    def _parts(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return
            case ast.If():
                self._if(node)
            case ast.For() | ast.AsyncFor():
                self._expression(node.iter)
                self._loops.append(node)
                self._branch(node.body)
                self._loops.pop()
                self._statements(node.orelse)
            case ast.While():
                self._loops.append(node)
                self._expression(node.test)
                self._branch(node.body)
                self._loops.pop()
                self._statements(node.orelse)
            case ast.With() | ast.AsyncWith():
                self._with(node)
            case ast.Try():
                self._statements(node.body)
                for handler in node.handlers:
                    self._branch(handler.body)
                self._statements(node.orelse)
                self._statements(node.finalbody)
            case ast.Match():
                self._expression(node.subject)
                for each in node.cases:
                    self._branch(each.body)
            case ast.Assign():
                self._expression(node.value)
                for target in node.targets:
                    self._assign(target, node.value, node)
            case ast.AnnAssign(value=ast.expr() as value):
                self._expression(value)
                self._assign(node.target, value, node)
            case ast.AugAssign():
                self._expression(node.value)
                self._update(node)
            case ast.Delete():
                for target in node.targets:
                    self._step("delete", self._things(target), node)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)

    def _branch(self, body: Iterable[ast.stmt]) -> None:
        self._branches += 1
        self._statements(body)
        self._branches -= 1

    def _if(self, node: ast.If) -> None:
        self._expression(node.test)
        before = list(self._held)
        self._branch(node.body)
        after, self._held = self._held, list(before)
        self._branch(node.orelse)
        if leaves(node.body):
            return
        self._held = after if not node.orelse or leaves(node.orelse) else [t for t in after if t in self._held] or after

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        held, entered = list(self._held), []
        for item in node.items:
            self._at_yield = []
            self._expression(item.context_expr)
            things = self._things(item.context_expr)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, things)
            if locks := {thing for thing in things if thing.kind in LOCKS}:
                self._acquired(locks, item.context_expr)
            self._enter(item.context_expr, things)
            entered.append((things, item.context_expr))
        self._statements(node.body)
        for things, expression in reversed(entered):
            self._step("__exit__", things, expression)
        self._held = held

    def _enter(self, expression: ast.expr, things: Things) -> None:
        """Hold what a context manager of the script's own takes: up to its ``yield``, or in its ``__enter__``."""
        if isinstance(expression, ast.Call):
            self._held += [thing for thing in self._at_yield if thing not in self._held]
        for owner in sorted(
            (t for t in things if t.kind == "instance"), key=lambda each: getattr(each.node, "lineno", 0)
        ):
            of = self._script.record(owner)
            for enter in self._script.inside[of, "__enter__"] or self._script._inherited(owner, "__enter__"):
                if enter.node not in self._functions and len(self._functions) <= DEEPEST:
                    self._in_place(enter.node, dict(self._bound_to(owner, enter)), expression)

    def _bound_to(self, owner: Thing, method: Thing) -> Iterator[tuple[Variable, Things]]:
        bound = self._script.thing("bound", method.node, of=owner)
        for _, given in self._script._bound(bound, [], [], self._scope(), self._env, None):
            yield from given.items()

    def _assign(self, target: ast.expr, value: ast.expr, node: ast.stmt) -> None:
        same = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        if same and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            each = [self._things(part) for part in value.elts]  # type: ignore[attr-defined]
            for to, things in zip(target.elts, each, strict=True):  # type: ignore[attr-defined]
                self._bind(to, things)
        else:
            self._bind(target, self._things(value))
        for to in ast.walk(target):
            if isinstance(to, (ast.Attribute, ast.Subscript)) and isinstance(to.ctx, ast.Store):
                self._step("write", self._things(to.value), node)
                self._expression(to.value)
                if isinstance(to, ast.Subscript):
                    self._expression(to.slice)
            elif isinstance(to, ast.Name) and self._is_global(to.id):
                self._step("global", frozenset(), to)

    def _bind(self, target: ast.expr, things: Things) -> None:
        if isinstance(target, ast.Name):
            variable = self._script.variable(target.id, self._scope())
            if variable[0] is self._script.tree and self._functions[-1] is not self._script.tree:
                return  # a global: others may assign it too
            if self._branches:
                things = things | self._env.get(variable, self._script.held.get(variable, set()))
            self._env[variable] = things
        elif isinstance(target, (ast.Tuple, ast.List)):
            for index, each in enumerate(target.elts):
                self._bind(each, self._script.unpacked(things, index))

    def _update(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            self._step("global update" if self._is_global(target.id) else "local", self._things(target), node)
        else:
            self._step("update", self._things(target.value), node)
            self._expression(target.value)

    def _is_global(self, name: str) -> bool:
        return (
            self._script.variable(name, self._scope())[0] is self._script.tree
            and self._functions[-1] is not self._script.tree
        )

    # expressions

    def _expression(self, node: ast.AST) -> None:
        match node:
            case ast.Lambda():
                return
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._expression(node.generators[0].iter)
                self._loops.append(node)
                for each in node.generators[1:]:
                    self._expression(each.iter)
                for each in node.generators:
                    for test in each.ifs:
                        self._expression(test)
                for part in ("key", "value", "elt"):
                    if (child := getattr(node, part, None)) is not None:
                        self._expression(child)
                self._loops.pop()
                return
            case ast.Yield():
                self._at_yield = list(self._held)
            case ast.NamedExpr():
                self._expression(node.value)
                self._bind(node.target, self._things(node.value))
                return
            case ast.Attribute(ctx=ast.Load()):
                self._step(f".{node.attr}", self._things(node.value), node)
                self._step("use", self._things(node), node)
            case ast.Subscript(ctx=ast.Load()):
                self._step("[]", self._things(node.value), node)
            case ast.Name(ctx=ast.Load()):
                self._step("use", self._things(node), node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.expr, ast.keyword)):
                self._expression(child)
        if isinstance(node, ast.Call):
            self._call(node)

    def _call(self, call: ast.Call) -> None:
        script, scope = self._script, self._scope()
        made = script._called(call, scope, self._env)
        if fresh := {t for t in made if t.node is call and t.kind not in ("copy", "bound")}:
            self._step("make", fresh, call)
        owners: Things = set()
        if isinstance(call.func, ast.Attribute):
            owners = self._things(call.func.value)
            name = call.func.attr
            locks = {thing for thing in owners if thing.kind in LOCKS}
            if locks and name == "acquire":
                self._acquired(locks, call, gives_up(call))
            else:
                self._step(name, owners, call)
            if name == "enter_context" and call.args:
                self._entered(self._things(call.args[0]), call)
            if name == "release":
                self._held = [thing for thing in self._held if thing not in locks]
        else:
            self._step("call", self._things(call.func), call)
        self._follow(call, scope)

    def _entered(self, things: Things, call: ast.Call) -> None:
        """Hold what was given to an ExitStack, which holds it to its end: from a loop, all that the loop goes over."""
        locks = {thing for thing in things if thing.kind in LOCKS}
        if locks:
            self._acquired(locks, call)
        for lock in locks if self._loops else ():
            every = self._script.thing("all", lock.node, lock.home, of=lock)
            every.many = False
            self._held.append(every)

    def _follow(self, call: ast.Call, scope: Scope) -> None:
        """Walk what is called, in place."""
        for thing in sorted(self._things(call.func), key=lambda each: getattr(each.node, "lineno", 0)):
            for function, given in list(self._script._bound(thing, call.args, call.keywords, scope, self._env, call)):
                if function.node in self._functions or len(self._functions) > DEEPEST:
                    continue
                self._in_place(function.node, given, call)

    def _in_place(self, function: ast.AST, given: dict[Variable, Things], call: ast.expr) -> None:
        env, self._env = self._env, {**self._env, **given}
        branches, self._branches = self._branches, 0
        self._path.append(call)
        self._body(function)
        self._path.pop()
        self._env, self._branches = env, branches

    def _acquired(self, locks: Things, node: ast.AST, polite: bool = False) -> None:
        self._step("acquire", locks, node, polite)
        self._held += sorted(locks, key=lambda each: getattr(each.node, "lineno", 0))

    def _things(self, node: ast.AST) -> Things:
        return self._script.things(node, self._scope(), self._env)

    def _scope(self) -> Scope:
        """The scope of the function that is being walked."""
        function = self._functions[-1]
        if isinstance(function, ast.Lambda):
            return self._script.scopes[function.body]
        body = getattr(function, "body", None)
        return self._script.scopes[body[0]] if body else Scope(self._script.tree, None)

    def _step(self, what: str, things: Iterable[Thing], node: ast.AST, polite: bool = False) -> None:
        if len(self.steps) < MOST:
            self.steps.append(
                Step(
                    what,
                    frozenset(things),
                    node,
                    frozenset(self._held),
                    tuple(self._loops),
                    self._guarded,
                    self._functions[-1],
                    tuple(self._path),
                    dict(self._env) if what in ("make", *STARTS) else {},
                    polite,
                )
            )


STARTS = ("map", "map_async", "imap", "imap_unordered", "starmap", "starmap_async", "apply", "apply_async", "submit")
"""Methods of pools and executors that have something done by others."""


def gives_up(call: ast.Call) -> bool:
    """Whether an acquire does not wait for ever."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    blocking = named.get("blocking") or named.get("block") or (call.args[0] if call.args else None)
    return "timeout" in named or len(call.args) > 1 or constant(blocking) in (False, 0)


def names_main(code: ast.AST | None) -> bool:
    """Whether code tells the main module from others, or a child from its parent."""
    tells = ("__name__", "parent_process", "current_process")
    parts = ast.walk(code) if code else ()
    return any(getattr(part, "id", "") in tells or getattr(part, "attr", "") in tells for part in parts)


def deciding(node: ast.stmt) -> ast.AST | None:
    """What decides which part of a statement is done: all of it, if no other statement is in it."""
    match node:
        case ast.If() | ast.While():
            return node.test
        case ast.For() | ast.AsyncFor():
            return node.iter
        case ast.Match():
            return node.subject
    return None if hasattr(node, "body") else node


def leaves(body: list[ast.stmt]) -> bool:
    """Whether the end of a block is not reached."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        return getattr(last.value.func, "attr", getattr(last.value.func, "id", "")) in (
            "exit",
            "_exit",
            "quit",
            "abort",
        )
    return isinstance(last, (ast.Return, ast.Raise, ast.Continue, ast.Break))


class Program:
    """A script as the processes and threads that it has.

    Args:
        script: The script.

    Attributes:
        main: What the main process does, in its main thread: the module, and functions that nobody in the script calls.
        workers: Whom it starts, and whom these start.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.workers: list[Worker] = []
        self._known: set[tuple[ast.AST, Thing | None, ast.AST, Thing]] = set()
        self.main = Walk(script, guarded=False).module()
        self._start_those_of(self.main)
        self.main += [step for thing in self._never_called() for step in self._alone(thing)]

    def _alone(self, thing: Thing) -> list[Step]:
        steps = Walk(self.script).function(thing, {})
        self._start_those_of(steps)
        return steps

    def _never_called(self) -> Iterator[Thing]:
        """Functions of the module that neither it nor a worker of it comes to."""
        passed = {
            part.id
            for call in ast.walk(self.script.tree)
            if isinstance(call, ast.Call)
            for part in [*call.args, *(k.value for k in call.keywords)]
            if isinstance(part, ast.Name)
        }
        for node in self.script.tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name in passed:
                continue
            # again each time: who was walked alone may have started somebody
            walked = {step.function for step in self.everyone()} | {worker.function.node for worker in self.workers}
            if node not in walked:
                yield self.script.thing("function", node)

    def _start_those_of(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step.node, ast.Call) and (step.what == "make" or step.what in STARTS):
                for worker in self._of(step, step.node):
                    self.workers.append(worker)
                    self._start_those_of(worker.steps)

    def _of(self, step: Step, call: ast.Call) -> Iterator[Worker]:
        script = self.script
        by = next((t for t in step.things if t.kind in ("process", "thread", "pool", "executor")), None)
        if by is None:
            return
        for function, given in self._begun(step, call, by):
            key = function.node, function.of, call, by
            if function.kind in ("function", "bound") and key not in self._known:
                self._known.add(key)
                in_loop = bool(step.loops)
                many = by.many or in_loop if by.kind in ("process", "thread") else not alone(by)
                walked = Walk(script).function(function, given)
                initializes = step.what == "make" and by.kind in ("pool", "executor")
                yield Worker(by.kind, by.home, function, by, call, many, walked, initializes)

    def _begun(self, step: Step, call: ast.Call, by: Thing) -> Iterator[tuple[Thing, dict[Variable, Things]]]:
        script, scope = self.script, self.script.scopes[call]
        if step.what == "make" and by.of is not None and by.of.kind == "class":  # class Work(Process): def run(self)
            for run in script.inside[by.of, "run"] or script._inherited(by, "run"):
                bound = script.thing("bound", run.node, of=by)
                yield from script._bound(bound, [], [], scope, step.env, None)
        else:
            yield from script.handed(call, scope, step.env)

    @property
    def actors(self) -> list[tuple[Worker | None, list[Step]]]:
        """What each process and thread does, and which worker it is; None is the main one."""
        return [(None, self.main), *((worker, worker.steps) for worker in self.workers)]

    def everyone(self) -> Iterator[Step]:
        """The steps of all processes and threads."""
        return (step for _, steps in self.actors for step in steps)

    def of_processes(self) -> list[Worker]:
        """The workers that have a memory of their own."""
        return [worker for worker in self.workers if worker.home == "processes"]

    def method(self) -> str:
        """The start method that the script asks for; empty if it does not say."""
        for node in ast.walk(self.script.tree):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ("set_start_method", "get_context") and (said := constant(node.args[0])):
                    return str(said)
        return ""


def alone(pool: Thing) -> bool:
    """Whether a pool has one worker."""
    call = pool.node
    if not isinstance(call, ast.Call):
        return False
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    return constant(named.get("processes") or named.get("max_workers") or (call.args[0] if call.args else None)) == 1
