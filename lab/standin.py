"""A stand-in for ``multiprocessing``: a module of the same names whose processes run in a place.

A script that says ``import multiprocessing`` is compiled as if it had said ``import multiprocessing@cluster as
multiprocessing``: only the names of the modules in its ``import`` statements change, so its tracebacks, its speed and
everything else are its own. Modules of that odd name are made here, on demand, by the import system. No other module is
touched: the standard library and whatever is installed go on importing the standard ``multiprocessing``.

In a module of the stand-in, each name is, in this order: the place's own class, what the place's context offers under
that name, the standard library's. What a place does not have is refused by the ``import`` statement, with the reason.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import multiprocessing
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

STANDARD = "multiprocessing"

REPLACED = ("connection", "context", "managers", "pool", "process", "queues", "sharedctypes", "synchronize")
"""Modules that offer what a place has of its own; the others (``dummy``, ``util``, ...) are the standard library's."""

ABSENT = {
    ("cluster", "shared_memory"): (
        "hosts share no memory; use multiprocessing.Array, or send the data through a Queue or as arguments"
    ),
}
"""What a place does not have, and why, unless it has a module of that name of its own."""

_METHODS = {"threads": ("spawn", "fork", "forkserver"), "cluster": ("spawn", "forkserver")}
"""Start methods whose promises a place keeps; nothing on a cluster can inherit its parent's state, as under ``fork``."""


def is_standard(module: str) -> bool:
    """Whether a name is that of ``multiprocessing`` or of a module in it."""
    return module == STANDARD or module.startswith(STANDARD + ".")


class StandIn(MetaPathFinder, Loader):
    """Finds and fills the modules of one place's stand-in.

    Args:
        ctx: The place's context.
    """

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.name = f"{STANDARD}@{ctx.place}"
        self._methods = _METHODS[ctx.place]
        self._method: str | None = None

    def install(self) -> None:
        """Let the import system find the modules."""
        sys.meta_path.insert(0, self)

    def of(self, module: str) -> str:
        """The name of the module that stands in for a standard one."""
        return self.name + module.removeprefix(STANDARD)

    def compile(self, source: bytes, path: str) -> CodeType:
        """Compile a source file whose imports of ``multiprocessing`` mean this stand-in.

        Raises:
            SyntaxError, ValueError: What Python raises for such a file.
        """
        if STANDARD.encode() not in source:
            return compile(source, path, "exec", dont_inherit=True)
        tree = compile(source, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        return compile(_Redirected(self).visit(tree), path, "exec", dont_inherit=True)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of the stand-in, None for any other.

        Raises:
            ImportError: The place does not have this module.
        """
        top, _, rest = fullname.partition(".")
        if top != self.name:
            return None
        if rest:
            self._refuse_absent(rest, fullname)
            if importlib.util.find_spec(f"{STANDARD}.{rest}") is None:
                return None
        return ModuleSpec(fullname, self, is_package=not rest)

    def _refuse_absent(self, rest: str, fullname: str) -> None:
        why = ABSENT.get((self.ctx.place, rest))
        if why and self._own(rest) is None:
            raise ImportError(f"the place {self.ctx.place!r} has no {STANDARD}.{rest}: {why}", name=fullname)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        _, _, rest = module.__name__.partition(".")
        standard = importlib.import_module(f"{STANDARD}.{rest}" if rest else STANDARD)
        if not rest:
            self._fill_top(module, standard)
        elif rest in REPLACED:
            self._fill(module, standard, self._own(rest))
        else:
            sys.modules[module.__name__] = standard  # the import system takes what lies there now

    def _own(self, rest: str) -> ModuleType | None:
        name = "lab.local" if self.ctx.place == "threads" else f"lab.cluster.{rest}"
        return importlib.import_module(name) if importlib.util.find_spec(name) else None

    def _fill(self, module: ModuleType, standard: ModuleType, own: ModuleType | None) -> None:
        for name, value in vars(standard).items():
            if name.startswith("__"):
                continue
            mine = getattr(own, name, None)
            if isinstance(mine, type) and mine.__module__ == getattr(own, "__name__", ""):
                value = mine
            elif name in multiprocessing.__all__ and hasattr(self.ctx, name):
                value = getattr(self.ctx, name)
            setattr(module, name, value)

    def _fill_top(self, module: ModuleType, standard: ModuleType) -> None:
        names = {name: getattr(self.ctx, name, getattr(standard, name)) for name in multiprocessing.__all__}
        names |= {
            "__all__": list(multiprocessing.__all__),
            "__doc__": f"{STANDARD}, in the place {self.ctx.place!r}",
            "__getattr__": self._attribute,
            "get_context": self._get_context,
            "get_start_method": self._get_start_method,
            "set_start_method": self._set_start_method,
            "get_all_start_methods": self._get_all_start_methods,
        }
        vars(module).update(names)

    def _attribute(self, name: str) -> Any:
        """What ``multiprocessing`` has besides its ``__all__``: modules of it that somebody has imported."""
        if not name.startswith("_") and isinstance(getattr(multiprocessing, name, None), ModuleType):
            return importlib.import_module(f"{self.name}.{name}")
        raise AttributeError(f"module {STANDARD!r} in the place {self.ctx.place!r} has no attribute {name!r}")

    def _get_context(self, method: str | None = None) -> Any:
        if method is not None:
            self._check(method)
        return self.ctx

    def _get_start_method(self, allow_none: bool = False) -> str | None:
        return self._method if self._method or allow_none else self._methods[0]

    def _set_start_method(self, method: str | None, force: bool = False) -> None:
        if self._method is not None and not force:
            raise RuntimeError("context has already been set")
        if method is not None:
            self._check(method)
        self._method = method

    def _get_all_start_methods(self) -> list[str]:
        return list(self._methods)

    def _check(self, method: str) -> None:
        if method not in self._methods:  # the standard library's words, as on a system without that method
            known = ", ".join(self._methods)
            raise ValueError(f"cannot find context for {method!r} in the place {self.ctx.place!r}, which has {known}")


class _Redirected(ast.NodeTransformer):
    """Renames ``multiprocessing`` in import statements; what they bind keeps its name."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [new for alias in node.names for new in self._renamed(alias)]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and is_standard(node.module):
            node.module = self._stand_in.of(node.module)
        return node

    def _renamed(self, alias: ast.alias) -> list[ast.alias]:
        if not is_standard(alias.name):
            return [alias]
        names = [ast.alias(self._stand_in.of(alias.name), alias.asname or STANDARD)]
        if not alias.asname and "." in alias.name:  # "import a.b" imports a.b and binds a
            names.append(ast.alias(self._stand_in.name, STANDARD))
        return [ast.copy_location(name, alias) for name in names]
