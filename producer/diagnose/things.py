"""What the names of a script may stand for: which lock, which queue, which function, however they were handed on.

Each place in the source where something is made is a thing. What a name, an attribute or a container may hold is worked out
for the whole script at once, until nothing is added any more (Andersen's points-to analysis), so it may be too much, hardly
too little. What is not known is no thing, and nothing is said of it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from types import MappingProxyType
from typing import cast

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Variable = tuple[ast.AST, str]
ELEMENTS = "[]"
ROUNDS = 20
"""Rounds after which no more is worked out; scripts need three or four."""

MADE = {
    "Process": "process",
    "Thread": "thread",
    "Timer": "thread",
    "Pool": "pool",
    "ThreadPool": "pool",
    "Queue": "queue",
    "JoinableQueue": "queue",
    "SimpleQueue": "queue",
    "LifoQueue": "queue",
    "PriorityQueue": "queue",
    "Lock": "lock",
    "RLock": "lock",
    "Semaphore": "semaphore",
    "BoundedSemaphore": "semaphore",
    "Condition": "condition",
    "Event": "event",
    "Barrier": "barrier",
    "Value": "value",
    "RawValue": "value",
    "Array": "array",
    "RawArray": "array",
    "Manager": "manager",
    "SyncManager": "manager",
    "Pipe": "pipe",
    "ProcessPoolExecutor": "executor",
    "ThreadPoolExecutor": "executor",
}
"""Classes and factories, by their last name, and what they make."""
PLAIN = frozenset({"list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray"})
MODULES = ("multiprocessing", "threading", "queue", "concurrent.futures", "lab", "_thread", "collections", "joblib")
GENERATORS = frozenset(
    {"random.Random", "numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator"}
)
RESULTS = {
    "apply_async": "result",
    "map_async": "result",
    "starmap_async": "result",
    "submit": "result",
    "imap": "iterator",
    "imap_unordered": "iterator",
}
SAME_ELEMENTS = frozenset(
    {
        "list",
        "tuple",
        "set",
        "sorted",
        "reversed",
        "enumerate",
        "zip",
        "iter",
        "cycle",
        "as_completed",
        "chain",
        "filter",
    }
)
HANDS_OUT = frozenset({"pop", "popleft", "get", "values", "items", "copy", "setdefault", "__getitem__"})
"""Methods of a container that give what is in it."""


@dataclass(eq=False)
class Thing:
    """What is made at one place of the source.

    Attributes:
        kind: ``lock``, ``queue``, ``function``, ``instance`` ...
        node: Where it is made; of a function, its definition.
        home: Between whom it is: ``processes``, ``threads`` or ``manager``; empty where that says nothing.
        many: Whether it may stand for several, as what is made in a loop does.
        of: The thing that it belongs to: a lock's value, a copy's proxy, a method's object, a partial's function.
        index: Which one of two ends.
        method: Of a context: its start method, if that is said.
    """

    kind: str
    node: ast.AST
    home: str = ""
    many: bool = False
    of: Thing | None = None
    index: int = 0
    method: str = ""


Things = set[Thing]
Env = Mapping[Variable, Things]
NOBODY: Env = MappingProxyType({})


@dataclass
class Scope:
    """A module, class or function, and the names that it binds.

    Attributes:
        node: It.
        above: The one around it.
        names: What it binds.
    """

    node: ast.AST
    above: Scope | None
    names: set[str] = field(default_factory=set)
    globals: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)


class Script:
    """A script that was read.

    Args:
        source: Its text.
        name: What it is called in messages of the parser.

    Attributes:
        tree: Its syntax tree.
        imports: What the names that it imports stand for, with dots.

    Raises:
        SyntaxError, ValueError: It is not Python.
    """

    def __init__(self, source: bytes | str, name: str = "SCRIPT.py") -> None:
        self.tree = ast.parse(source, name)
        self.imports: dict[str, str] = {}
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self.held: dict[Variable, Things] = defaultdict(set)
        self.inside: dict[tuple[Thing, str], Things] = defaultdict(set)
        self.returned: dict[ast.AST, Things] = defaultdict(set)
        self._made: dict[tuple[object, ...], Thing] = {}
        self._order: list[ast.AST] = []
        module = Scope(self.tree, None)
        self._lay_out(self.tree, module)
        self.scopes_names = module.names
        self._solve()

    # the layout: parents, scopes, imports

    def _lay_out(self, node: ast.AST, scope: Scope) -> None:
        self.scopes[node] = scope
        self._order.append(node)
        self._bind(node, scope)
        inner = scope
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            inner = Scope(node, scope)
            if not isinstance(node, ast.ClassDef):
                inner.names |= {arg.arg for arg in parameters(node)}
        for child in ast.iter_child_nodes(node):
            self.parents[child] = node
            outside = child in getattr(node, "decorator_list", ()) or isinstance(child, ast.arguments)
            self._lay_out(child, scope if outside else inner)

    def _bind(self, node: ast.AST, scope: Scope) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.imports[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom():
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
            case ast.Global():
                scope.globals |= set(node.names)
            case ast.Nonlocal():
                scope.nonlocals |= set(node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.names.add(node.name)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                scope.names.add(node.id)
            case ast.ExceptHandler(name=str(name)):
                scope.names.add(name)

    def variable(self, name: str, scope: Scope) -> Variable:
        """The variable that a name means in a scope."""
        here: Scope | None = scope
        while here is not None:
            visible = here is scope or not isinstance(here.node, ast.ClassDef)
            if name in here.globals:
                break
            if visible and name in here.names and name not in here.nonlocals:
                return here.node, name
            here = here.above
        return self.tree, name

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node lies in, from the inside to the outside."""
        while (up := self.parents.get(node)) is not None:
            yield up
            node = up

    def around(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """What a node lies in, from the inside to the outside, each after the part of it that the node lies in."""
        return pairwise(chain((node,), self.above(node)))

    def dotted(self, node: ast.AST) -> str:
        """The full name of what is imported; empty if it is not."""
        if isinstance(node, ast.Name):
            everything = self.imports.get("*", "").removesuffix(".*")  # from multiprocessing import *
            known = node.id in MADE and node.id not in self.scopes_names
            return self.imports.get(node.id, f"{everything}.{node.id}" if everything and known else "")
        if isinstance(node, ast.Attribute) and (base := self.dotted(node.value)):
            return f"{base}.{node.attr}"
        return ""

    # what everything may hold

    def _solve(self) -> None:
        for _ in range(ROUNDS):
            before = self._size()
            for node in self._order:
                self._flow(node)
            if self._size() == before:
                break

    def _size(self) -> int:
        return sum(sum(map(len, table.values())) for table in (self.held, self.inside, self.returned))

    def _flow(self, node: ast.AST) -> None:
        scope = self.scopes[node]
        match node:
            case ast.Assign():
                for target in node.targets:
                    self.assign(target, node.value, scope)
            case ast.AnnAssign(value=ast.expr() as value):
                self.assign(node.target, value, scope)
            case ast.NamedExpr() | ast.AugAssign():
                self.assign(node.target, node.value, scope)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                self._loop(node.target, node.iter, scope)
            case ast.withitem(optional_vars=ast.expr() as target):
                self.give(target, self.things(node.context_expr, scope), scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._name(node.name, {self.thing("function", node)}, scope)
            case ast.ClassDef():
                self._name(node.name, {self.thing("class", node)}, scope)
            case ast.Return(value=ast.expr() as value) | ast.Yield(value=ast.expr() as value):
                self.returned[scope.node] |= self.things(value, scope)
            case ast.Lambda():
                self.returned[node] |= self.things(node.body, self.scopes[node.body])
            case ast.Call():
                self._call(node, scope)

    def _name(self, name: str, things: Things, scope: Scope) -> None:
        self.held[self.variable(name, scope)] |= things
        if isinstance(scope.node, ast.ClassDef):
            self.inside[self.thing("class", scope.node), name] |= things

    def _loop(self, target: ast.expr, source: ast.expr, scope: Scope) -> None:
        match source, target:
            case ast.Call(func=ast.Name(id="enumerate"), args=[first, *_]), ast.Tuple(elts=[_, second]):
                self.give(second, self.elements(self.things(first, scope)), scope)
            case ast.Call(func=ast.Name(id="zip"), args=several), ast.Tuple(elts=targets):
                for each, to in zip(several, targets, strict=False):
                    self.give(to, self.elements(self.things(each, scope)), scope)
            case ast.Call(func=ast.Attribute(attr="items", value=mapping)), ast.Tuple(elts=[_, second]):
                self.give(second, self.elements(self.things(mapping, scope)), scope)
            case _:
                self.give(target, self.elements(self.things(source, scope)), scope)

    def assign(self, target: ast.expr, value: ast.expr, scope: Scope) -> None:
        """Let a target hold what an expression may be."""
        both = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            for to, each in zip(target.elts, value.elts, strict=True):  # type: ignore[attr-defined]
                self.assign(to, each, scope)
            return
        self.give(target, self.things(value, scope), scope)

    def give(self, target: ast.expr, things: Things, scope: Scope) -> None:
        """Let a target hold things."""
        match target:
            case ast.Name():
                self._name(target.id, things, scope)
            case ast.Attribute():
                for owner in self.things(target.value, scope):
                    self.inside[self.record(owner), target.attr] |= things
            case ast.Subscript():
                for owner in self.things(target.value, scope):
                    self.inside[owner, ELEMENTS] |= things
                    if isinstance(target.slice, ast.Constant):
                        self.inside[owner, f"[{target.slice.value!r}]"] |= things
            case ast.Starred():
                self.give(target.value, things, scope)
            case ast.Tuple() | ast.List():
                for index, each in enumerate(target.elts):
                    self.give(each, self.unpacked(things, index), scope)

    def unpacked(self, things: Things, index: int) -> Things:
        """What the name at an index gets when things are unpacked: of a pipe, that end."""
        found: Things = set()
        for thing in things:
            within = self.inside[thing, ELEMENTS]
            if thing.kind == "pipe":
                found |= {end for end in within if end.index == index}
            else:
                found |= (self.inside[thing, f"[{index}]"] if thing.kind == "tuple" else set()) or within
        return found

    def elements(self, things: Iterable[Thing]) -> Things:
        """What is in containers."""
        return set().union(*(self.inside[thing, ELEMENTS] for thing in things)) if things else set()

    def thing(
        self, kind: str, node: ast.AST, home: str = "", of: Thing | None = None, index: int = 0, method: str = ""
    ) -> Thing:
        """The thing of a kind that is made at a node; the same one each time."""
        key = (kind, node, of, index)
        if key not in self._made:
            many = kind not in ("function", "class") and self.in_loop(node)
            self._made[key] = Thing(kind, node, home, many, of, index, method)
        return self._made[key]

    def made(self) -> Iterable[Thing]:
        """Everything that is made anywhere."""
        return self._made.values()

    def in_loop(self, node: ast.AST) -> bool:
        """Whether a node lies in a loop or a comprehension of its function, and not only in what that goes over."""
        for below, up in self.around(node):
            if isinstance(up, (ast.For, ast.While, ast.AsyncFor)) and below is not getattr(up, "iter", None):
                return True
            if isinstance(up, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
                first = up.generators[0]
                if below is not first or not any(node is part for part in ast.walk(first.iter)):
                    return True
            if isinstance(up, ast.BinOp) and isinstance(up.op, ast.Mult) and isinstance(up.left, ast.List):
                return False
            if isinstance(up, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return False
        return False

    def record(self, thing: Thing) -> Thing:
        """Where a thing's attributes are kept: those of all instances of a class in one."""
        if thing.kind in ("instance", "process", "thread") and isinstance(thing.of, Thing) and thing.of.kind == "class":
            return thing.of
        return thing

    def things(self, node: ast.AST, scope: Scope | None = None, env: Env = NOBODY) -> Things:
        """What an expression may be.

        Args:
            node: The expression.
            scope: Where it stands; None for where the source has it.
            env: Variables of which more is known than for the whole script.
        """
        scope = scope or self.scopes[node]
        match node:
            case ast.Name():
                variable = self.variable(node.id, scope)
                return env[variable] if variable in env else set(self.held.get(variable, ()))
            case ast.Attribute():
                return self._attribute(node, scope, env)
            case ast.Call():
                return self._called(node, scope, env)
            case ast.Lambda():
                return {self.thing("function", node)}
            case ast.Tuple() | ast.List() | ast.Set():
                made = self.thing("tuple" if isinstance(node, ast.Tuple) else "list", node)
                starred = False
                for index, each in enumerate(node.elts):
                    inner = self.things(each.value if isinstance(each, ast.Starred) else each, scope, env)
                    starred = starred or isinstance(each, ast.Starred)
                    self.inside[made, ELEMENTS] |= self.elements(inner) if isinstance(each, ast.Starred) else inner
                    if not starred:
                        self.inside[made, f"[{index}]"] |= inner
                return {made}
            case ast.Dict():
                made = self.thing("list", node)
                for key, value in zip(node.keys, node.values, strict=True):
                    inner = self.things(value, scope, env)
                    self.inside[made, ELEMENTS] |= inner
                    if isinstance(key, ast.Constant):
                        self.inside[made, f"[{key.value!r}]"] |= inner
                return {made}
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                made = self.thing("list", node)
                self.inside[made, ELEMENTS] |= self.things(node.elt, scope, env)
                return {made}
            case ast.DictComp():
                made = self.thing("list", node)
                self.inside[made, ELEMENTS] |= self.things(node.value, scope, env)
                return {made}
            case ast.Subscript():
                return self._subscript(node, scope, env)
            case ast.IfExp():
                return self.things(node.body, scope, env) | self.things(node.orelse, scope, env)
            case ast.BoolOp():
                return set().union(*(self.things(value, scope, env) for value in node.values))
            case ast.BinOp():
                return self.things(node.left, scope, env) | self.things(node.right, scope, env)
            case ast.NamedExpr() | ast.Await() | ast.Starred():
                return self.things(node.value, scope, env)
        return set()

    def _attribute(self, node: ast.Attribute, scope: Scope, env: Env) -> Things:
        found: Things = set()
        for owner in self.things(node.value, scope, env):
            if owner.kind == "namespace":
                found |= self._copied(owner, self.inside[owner, node.attr], node)
                continue
            for thing in self.inside[self.record(owner), node.attr] | self._inherited(owner, node.attr):
                bound = owner.kind in ("instance", "process", "thread") and thing.kind == "function"
                found.add(self.thing("bound", thing.node, of=owner) if bound else thing)
        return found

    def _inherited(self, owner: Thing, name: str, depth: int = 0) -> Things:
        cls = self.record(owner)
        if not isinstance(cls.node, ast.ClassDef) or depth > 5:
            return set()
        found: Things = set()
        for base in cls.node.bases:
            for thing in self.things(base):
                if thing.kind == "class":
                    found |= self.inside[thing, name] or self._inherited(thing, name, depth + 1)
        return found

    def _subscript(self, node: ast.Subscript, scope: Scope, env: Env) -> Things:
        found: Things = set()
        for owner in self.things(node.value, scope, env):
            within = self.inside[owner, ELEMENTS]
            if owner.kind == "proxy":
                found |= self._copied(owner, within, node)
            elif owner.kind == "pipe" and isinstance(node.slice, ast.Constant):
                found |= {end for end in within if end.index == node.slice.value}
            else:
                known = self.inside[owner, f"[{node.slice.value!r}]"] if isinstance(node.slice, ast.Constant) else set()
                found |= known or within | ({owner} if isinstance(node.slice, ast.Slice) else set())
        return found

    def _copied(self, owner: Thing, within: Things, node: ast.AST) -> Things:
        """What a proxy hands out: what is managed itself as it is, of all else a copy."""
        managed = {thing for thing in within if thing.home == "manager"}
        return managed or {self.thing("copy", node, of=owner)}

    # calls

    def full_name(self, call: ast.Call, scope: Scope | None = None, env: Env = NOBODY) -> str:
        """The full name of what is called: ``multiprocessing.Queue``, ``manager.dict``; empty if unknown."""
        if name := self.dotted(call.func):
            return name
        if isinstance(call.func, ast.Attribute):
            for owner in self.things(call.func.value, scope or self.scopes[call], env):
                if owner.kind == "manager":
                    return f"manager.{call.func.attr}"
                if owner.kind == "context":
                    return (
                        f"{'multiprocessing.dummy' if owner.home == 'threads' else 'multiprocessing'}.{call.func.attr}"
                    )
        return ""

    def _called(self, call: ast.Call, scope: Scope, env: Env) -> Things:
        if (name := self.full_name(call, scope, env)) and (made := self._factory(name, call, scope, env)):
            return made
        found: Things = set()
        if isinstance(call.func, ast.Attribute):
            for owner in self.things(call.func.value, scope, env):
                found |= self._from_method(owner, call.func.attr, call, scope, env)
        elif (
            isinstance(call.func, ast.Name)
            and call.func.id in PLAIN | SAME_ELEMENTS
            and call.func.id not in self.imports
        ):
            made_here = self.thing("list", call)
            for arg in call.args:
                self.inside[made_here, ELEMENTS] |= self.elements(self.things(arg, scope, env))
            return {made_here}
        for thing in self.things(call.func, scope, env):
            if thing.kind in ("function", "bound"):
                found |= self.returned[thing.node]
            elif thing.kind == "class":
                found.add(self._instance(thing, call))
        return found

    def _factory(self, name: str, call: ast.Call, scope: Scope, env: Env) -> Things:
        first, _, last = name.partition(".")[0], None, name.rpartition(".")[2]
        if last in ("get_context",) and first in ("multiprocessing", "lab"):
            said = constant(call.args[0]) if call.args else ""
            home = "threads" if said == "threads" else "processes"
            return {self.thing("context", call, home, method=said if said in ("fork", "spawn", "forkserver") else "")}
        if name == "lab.get_executor":
            said = constant(call.args[0]) if call.args else ""
            return {self.thing("executor", call, "threads" if said == "threads" else "processes")}
        if first == "manager":
            return self._managed(last, call, scope, env)
        if name in ("functools.partial", "partial") and call.args:
            return {self.thing("partial", call, of=each) for each in self.things(call.args[0], scope, env)}
        if last in ("as_completed", "chain", "cycle", "wait", "deepcopy", "copy"):
            within = set().union(*(self.elements(self.things(arg, scope, env)) for arg in call.args))
            made = self.thing("list", call)
            self.inside[made, ELEMENTS] |= within | ({self.thing("list", call, index=1)} if last == "wait" else set())
            if last == "wait":
                self.inside[self.thing("list", call, index=1), ELEMENTS] |= within
            return {made}
        if name in GENERATORS:
            return {self.thing("generator", call)}
        if not name.startswith(MODULES):
            return set()
        if last in PLAIN and first == "collections":
            return {self.thing("list", call)}
        if last not in MADE:
            return set()
        threads = first in ("threading", "queue", "_thread") or "dummy" in name or last.startswith("Thread")
        kind = MADE[last]
        if kind == "process" and threads:
            kind = "thread"
        made = self.thing(kind, call, "threads" if threads else "processes")
        if kind == "pipe":
            duplex = not any(k.arg == "duplex" and constant(k.value) is False for k in call.keywords) and not (
                call.args and constant(call.args[0]) is False
            )
            self.inside[made, ELEMENTS] |= {
                self.thing("connection", call, made.home, of=made, index=i, method="duplex" if duplex else "")
                for i in (0, 1)
            }
        return {made}

    def _managed(self, last: str, call: ast.Call, scope: Scope, env: Env) -> Things:
        if last in ("list", "dict"):
            made = self.thing("proxy", call, "manager")
            for arg in [*call.args, *(each.value for each in call.keywords)]:
                inner = self.things(arg, scope, env)
                self.inside[made, ELEMENTS] |= self.elements(inner) if arg in call.args else inner
            return {made}
        if last == "Namespace":
            return {self.thing("namespace", call, "manager")}
        return {self.thing(MADE[last], call, "manager")} if last in MADE else set()

    def _from_method(self, owner: Thing, name: str, call: ast.Call, scope: Scope, env: Env) -> Things:
        if owner.kind in ("pool", "executor") and name in RESULTS:
            return {self.thing(RESULTS[name], call, owner.home, of=owner)}
        if owner.kind == "executor" and name == "map":
            return {self.thing("iterator", call, owner.home, of=owner)}
        if owner.kind in ("value", "array") and name == "get_lock":
            return {self.thing("lock", owner.node, owner.home, of=owner)}
        if owner.kind == "proxy" and name in HANDS_OUT:
            copied = self._copied(owner, self.inside[owner, ELEMENTS], call)
            if name in ("values", "items"):
                made = self.thing("list", call)
                self.inside[made, ELEMENTS] |= copied
                return {made}
            return copied
        if owner.kind in ("list", "tuple") and name in HANDS_OUT:
            return {owner} if name in ("values", "items", "copy") else self.inside[owner, ELEMENTS]
        return set()

    def _instance(self, cls: Thing, call: ast.Call) -> Thing:
        kind, home = self._base_kind(cls)
        return self.thing(kind, call, home, of=cls)

    def _base_kind(self, cls: Thing, depth: int = 0) -> tuple[str, str]:
        for base in cast(ast.ClassDef, cls.node).bases:
            name = self.dotted(base)
            if not name and isinstance(base, ast.Attribute):
                name = (
                    f"multiprocessing.{base.attr}" if any(t.kind == "context" for t in self.things(base.value)) else ""
                )
            last = name.rpartition(".")[2]
            if (
                name.startswith("multiprocessing")
                and "dummy" not in name
                and last in ("Process", "SpawnProcess", "ForkProcess")
            ):
                return "process", "processes"
            if name.startswith(("threading", "multiprocessing")) and last in ("Thread", "Process", "Timer"):
                return "thread", "threads"
            if name.startswith("multiprocessing.managers"):
                return "manager", "processes"
            if depth < 5:
                for thing in self.things(base):
                    if thing.kind == "class":
                        return self._base_kind(thing, depth + 1)
        return "instance", ""

    def _call(self, call: ast.Call, scope: Scope) -> None:
        """Let what is called have its arguments, and what is started its."""
        called = (
            self._bound(thing, call.args, call.keywords, scope, NOBODY, call) for thing in self.things(call.func, scope)
        )
        for _, given in chain(*called, self.handed(call, scope, NOBODY)):
            for variable, things in given.items():
                self.held[variable] |= things
        if isinstance(call.func, ast.Attribute) and call.func.attr in (
            "append",
            "add",
            "appendleft",
            "insert",
            "extend",
            "put",
        ):
            for owner in self.things(call.func.value, scope):
                if owner.kind in ("list", "proxy") or (owner.kind == "queue" and owner.home == "threads"):
                    for arg in call.args:
                        things = self.things(arg, scope)
                        self.inside[owner, ELEMENTS] |= self.elements(things) if call.func.attr == "extend" else things

    def handed(self, call: ast.Call, scope: Scope, env: Env) -> Iterator[tuple[Thing, dict[Variable, Things]]]:
        """The functions that a call has called by others, each with what its parameters get."""
        for target, args, keywords, of_elements in self.handed_over(call, scope, env):
            for thing in self.things(target, scope, env):
                if not of_elements:
                    yield from self._bound(thing, args, keywords, scope, env, None)
                    continue
                within = [self.elements(self.things(arg, scope, env)) for arg in args]
                for function, given in self._bound(thing, [], [], scope, env, None):
                    free = [variable for variable in self._parameters(function, {}) if variable not in given]
                    given.update({variable: t for variable, t in zip(free, within, strict=False) if t})
                    yield function, given

    def _bound(
        self,
        thing: Thing,
        args: Iterable[ast.expr],
        keywords: Iterable[ast.keyword],
        scope: Scope,
        env: Env,
        call: ast.Call | None,
    ) -> Iterator[tuple[Thing, dict[Variable, Things]]]:
        own: dict[Variable, Things] = {}
        if thing.kind == "class" and call is not None:
            instance = self._instance(thing, call)
            for init in self.inside[thing, "__init__"] or self._inherited(thing, "__init__"):
                bound = self.thing("bound", init.node, of=instance)
                yield from self._bound(bound, args, keywords, scope, env, None)
            return
        if thing.kind == "partial":
            call_of = cast(ast.Call, thing.node)
            args = [*call_of.args[1:], *args]
            keywords = [*call_of.keywords, *keywords]
            if thing.of is not None:
                yield from self._bound(thing.of, args, keywords, scope, env, None)
            return
        if thing.kind not in ("function", "bound"):
            return
        names = self._parameters(thing, own)
        for position, arg in enumerate(args):
            if isinstance(arg, ast.Starred):
                for variable in names[position:]:
                    own.setdefault(variable, set()).update(self.elements(self.things(arg.value, scope, env)))
                break
            if position < len(names):
                own[names[position]] = self.things(arg, scope, env)
        for keyword in keywords:
            if keyword.arg is not None:
                own[thing.node, keyword.arg] = self.things(keyword.value, scope, env)
        yield thing, own

    def _parameters(self, thing: Thing, own: dict[Variable, Things]) -> list[Variable]:
        function = thing.node
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return []
        names: list[Variable] = [(function, arg.arg) for arg in [*function.args.posonlyargs, *function.args.args]]
        if thing.kind == "bound" and thing.of is not None and names:
            own[names[0]] = {thing.of}
            return names[1:]
        return names

    def handed_over(
        self, call: ast.Call, scope: Scope, env: Env
    ) -> Iterator[tuple[ast.expr, list[ast.expr], list[ast.keyword], bool]]:
        """The functions that a call hands over to be called by others, with their arguments.

        Returns:
            Function, positional and named arguments; and whether these are containers from which each call gets an element.
        """
        kinds = {thing.kind for thing in self._called(call, scope, env)}
        named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        if kinds & {"process", "thread"}:
            timer = self.full_name(call, scope, env).endswith("Timer")
            if timer and len(call.args) > 1:
                yield call.args[1], spread(call.args[2] if len(call.args) > 2 else named.get("args")), [], False
            target = named.get("target") or (call.args[1] if len(call.args) > 1 and not timer else None)
            args = named.get("args") or (call.args[3] if len(call.args) > 3 else None)
            if target is not None:
                yield target, spread(args), keywords_of(named.get("kwargs")), False
        if kinds & {"pool", "executor"}:
            initializer = named.get("initializer") or (call.args[1] if len(call.args) > 1 and "pool" in kinds else None)
            given = named.get("initargs") or (call.args[2] if len(call.args) > 2 else None)
            if initializer is not None:
                yield initializer, spread(given), [], False
        if isinstance(call.func, ast.Attribute) and call.args:
            method, args_ = call.func.attr, call.args
            for owner in self.things(call.func.value, scope, env):
                if owner.kind == "executor" and method == "submit":
                    yield args_[0], list(args_[1:]), call.keywords, False
                elif owner.kind in ("pool", "executor") and method in ("map", "map_async", "imap", "imap_unordered"):
                    yield args_[0], list(args_[1:] if owner.kind == "executor" else args_[1:2]), [], True
                elif owner.kind == "pool" and method in ("starmap", "starmap_async"):
                    yield args_[0], [], [], False
                elif owner.kind == "pool" and method in ("apply", "apply_async"):
                    args_of = args_[1] if len(args_) > 1 else named.get("args")
                    yield (
                        args_[0],
                        spread(args_of),
                        keywords_of(named.get("kwds") or (args_[2] if len(args_) > 2 else None)),
                        False,
                    )


def parameters(function: Function) -> list[ast.arg]:
    """All parameters of a function."""
    args = function.args
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]


def spread(args: ast.expr | None) -> list[ast.expr]:
    """The expressions of a tuple or list of arguments; of anything else, its elements."""
    if args is None:
        return []
    return list(args.elts) if isinstance(args, (ast.Tuple, ast.List)) else [ast.Starred(args, ast.Load())]


def keywords_of(given: ast.expr | None) -> list[ast.keyword]:
    """The entries of a dict of named arguments."""
    if not isinstance(given, ast.Dict):
        return []
    return [ast.keyword(str(constant(key)), value) for key, value in zip(given.keys, given.values, strict=True) if key]


def constant(node: ast.AST | None) -> object:
    """The value of a constant; None for anything else."""
    return node.value if isinstance(node, ast.Constant) else None
