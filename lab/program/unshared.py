"""Globals of which each process has one of its own, told where a function that uses one is handed over.

A forked child has what its parent had. A child of ``spawn``, and one on a host, imports its program's modules anew: a lock
that a module makes is another lock there, what ``main()`` has assigned is as the import left it, and what is bound under
the main guard is not there at all. Of these only the last one fails. The others lose updates, wait for what never comes, or
compute with something else, and a program that was written where children are forked has never met them.

What is looked at is byte code: the globals that a function reads, and the functions of the program that it calls by name.
What it assigns to, or what a function does that was handed over earlier, is its own affair: so nothing is said of what an
initializer keeps.
"""

from __future__ import annotations

import ast
import dis
import os
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

from lab import mainmodule
from lab.program import source

_SHARED = tuple(
    f"lab.{room}.{noun}"
    for room in ("cluster", "trace")
    for noun in ("synchronize", "queues", "connection", "sharedctypes", "managers", "shared", "managed")
)
"""The modules of what processes share, if it is handed over."""

_looked_at: set[int] = set()
"""The ids of what was looked at: of a class that came later and has the id of one that is gone, nothing is said."""
_told: set[Global] = set()
_assigned: set[Global] = set()
"""What a function that was handed over assigns to, in its process."""
_filled: set[Global] = set()
"""What such a function may put something into."""
_CHANGES = {
    name
    for kind, fixed in ((list, tuple), (set, frozenset), (dict, MappingProxyType))
    for name in {*dir(kind)} - {*dir(fixed)}
}
"""Methods of what can be changed, by which that is done."""


class Global(NamedTuple):
    """A module's global."""

    module: str
    name: str

    @property
    def value(self) -> Any:
        """What it is in this process; None also if there is none."""
        return _vars(self.module).get(self.name)


def _vars(module: str) -> dict[str, Any]:
    """A module's globals; empty for what is among the modules and is none, or None."""
    found: dict[str, Any] = getattr(sys.modules.get(module), "__dict__", {})
    return found


class Use(NamedTuple):
    """A place in the program's source where a global is used.

    Attributes:
        path: Of the file.
        line: In it.
        function: The function that it stands in, by its qualified name.
    """

    path: str
    line: int
    function: str


def look(obj: FunctionType | type) -> None:
    """Warn of what a function that travels by its name, or the methods of a class, will not find as it is here.

    Raises:
        RuntimeWarning: Where the filters of warnings make that an error.
    """
    if id(obj) in _looked_at:
        return
    _looked_at.add(id(obj))
    root = source.root_of_main()
    if root is None:
        return
    reads: dict[Global, Use] = {}
    _follow([obj] if isinstance(obj, FunctionType) else list(_methods(obj)), root, reads)
    for one, use in reads.items():
        if one not in _told | _assigned and (why := _why(one)):
            _told.add(one)
            warnings.warn_explicit(
                f"{use.function}() uses the global {one.name!r}. Each process imports {_file(one.module)} anew, and {why}."
                " Hand it over: Process(args=...), or Pool(initializer=..., initargs=...).",
                RuntimeWarning,
                use.path,
                use.line,
            )


def _methods(kind: type) -> Iterator[FunctionType]:
    for base in kind.__mro__:
        for each in vars(base).values():
            function = each.__func__ if type(each) in (staticmethod, classmethod) else each
            if type(function) is FunctionType:
                yield function


def _follow(functions: list[FunctionType], root: str, reads: dict[Global, Use]) -> None:
    """Find what functions read, and all that they call by a global's name; and what those assign."""
    seen: set[CodeType] = set()
    while functions:
        function = functions.pop()
        code, module = function.__code__, function.__module__
        if code in seen or module not in sys.modules or not source.is_own(os.path.realpath(code.co_filename), root):
            continue
        seen.add(code)
        if isinstance(wrapped := getattr(function, "__wrapped__", None), FunctionType):
            functions.append(wrapped)
        _assigned.update(Global(module, name) for name in _assigns(code))
        _filled.update(Global(module, name) for name in _fills(code))
        for one, line in _reads(code, module):
            if (
                type(one.value) is FunctionType
            ):  # isinstance would ask a proxy for its __class__, and what that stands for
                functions.append(one.value)
            reads.setdefault(one, Use(code.co_filename, line, function.__qualname__))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of what is defined in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _reads(code: CodeType, module: str) -> Iterator[tuple[Global, int]]:
    """The globals that code reads, of its own module and, as attributes, of other ones; and in which line."""
    for each in _codes(code):
        for load, then in pairwise(dis.get_instructions(each)):
            if load.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                continue
            one, line = Global(module, load.argval), (load.positions and load.positions.lineno) or code.co_firstlineno
            if issubclass(type(one.value), ModuleType) and then.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                one = Global(one.value.__name__, then.argval)
            if one.name in _vars(one.module):
                yield one, line


def _assigns(code: CodeType) -> Iterator[str]:
    """The names of its module's globals that code assigns to."""
    for each in _codes(code):
        yield from (step.argval for step in dis.get_instructions(each) if step.opname == "STORE_GLOBAL")


def _fills(code: CodeType) -> Iterator[str]:
    """The names of its module's globals of which code may change what is in them."""
    for each in _codes(code):
        steps = list(dis.get_instructions(each))
        items = any(step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") for step in steps)
        for load, then in pairwise(steps):
            if load.opname == "LOAD_GLOBAL" and (items or then.argval in _CHANGES):
                yield load.argval


def _why(one: Global) -> str:
    """What a child has in place of a global as it is here; empty if it has the same."""
    is_main = one.module == "__main__"
    if is_main and mainmodule.keeps(one.name):
        return "has none, as it is bound under the main guard"
    if str(type(one.value).__module__).startswith(_SHARED):
        return "has another one by that name"
    if is_main and one not in _filled and _has_changed(one):
        return "has it as the import leaves it, without what this process has done to it since"
    return ""


def _has_changed(one: Global) -> bool:
    """Whether a global of the main module is not any more what one line of its file says, and no other line of an import."""
    tree = mainmodule.parsed(_vars(one.module).get("__file__") or "")
    lines = list(mainmodule.imported_lines(tree)) if tree else []
    bound = [node for node in lines if isinstance(node, (ast.Assign, ast.AnnAssign)) and one.name in _targets(node)]
    try:
        (line,) = bound
        then = ast.literal_eval(line.value or "None")
        if type(one.value) is type(then) and one.value == then:
            return False
    except Exception:  # noqa: BLE001 - there is more to it; and an object may answer to == with what it likes
        return False
    return not any(_touches(node, one) for node in lines if node is not line)


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    return [ast.unparse(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def _touches(node: ast.stmt, one: Global) -> bool:
    """Whether a statement may do something to a global when its module is imported: it, or a function that it names."""
    parts = [part for each in _at_import(node) for part in ast.walk(each)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    reads: dict[Global, Use] = {}
    for name in names:
        if type(value := _vars(one.module).get(name)) is FunctionType:
            _follow([value], os.path.dirname(os.path.realpath(value.__code__.co_filename)), reads)
    return one.name in names or one in reads or one in _assigned


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a statement that run where it stands: of a function, its decorators and defaults."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from (*node.decorator_list, node.args)
    elif isinstance(node, ast.ClassDef):
        yield from (*node.decorator_list, *node.bases, *node.keywords)
        for each in node.body:
            yield from _at_import(each)
    else:
        yield node


def _file(module: str) -> str:
    return os.path.basename(_vars(module).get("__file__") or module)
