"""A stand-in for ``multiprocessing`` and ``concurrent.futures``: modules of the same names whose processes run in a place.

A script that says ``import multiprocessing`` is compiled as if it had said ``import multiprocessing@cluster as
multiprocessing``: only the names of the modules in its ``import`` statements change, so its tracebacks, its speed and
everything else are its own. Modules of that odd name are made here, on demand, by the import system. No other module is
touched: the standard library and whatever is installed go on importing the standard ones.

In a module of the stand-in, each name is, in this order: the place's own class, what the place's context offers under
that name, the place's own function, the standard library's. What a place does not have is refused by the ``import``
statement, with the reason.
Of ``concurrent.futures`` a place has the ProcessPoolExecutor, once somebody asks for it: threads need no fleet.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lab import sharing

STANDARD = "multiprocessing"
FUTURES = "concurrent.futures"
EXECUTOR = "ProcessPoolExecutor"

_EXECUTORS = {"cluster": "lab.cluster.futures", "threads": "lab.local", "processes": FUTURES}
"""Where the executor of a place is; ``explored`` has none of its own, and there the import means the standard library's."""

REPLACED = ("connection", "context", "managers", "pool", "process", "queues", "sharedctypes", "synchronize")
"""Modules that offer what a place has of its own; the others (``dummy``, ``util``, ...) are the standard library's."""

ABSENT = {
    ("cluster", "shared_memory"): (
        "hosts share no memory; use multiprocessing.Array, or send the data through a Queue or as arguments"
    ),
    ("explored", "shared_memory"): "nobody sees who reads and writes it; use multiprocessing.Array",
    ("explored", "dummy"): "it makes threads that nobody orders; use multiprocessing.Process",
}
"""What a place does not have, and why, unless it has a module of that name of its own."""

_METHODS = {"processes": tuple(multiprocessing.get_all_start_methods()), "cluster": ("spawn", "forkserver")}
"""Start methods whose promises a place keeps, if not all: on a cluster nothing inherits state, as under ``fork``."""


class StandIn(MetaPathFinder, Loader):
    """Finds and fills the modules of one place's stand-in.

    Args:
        place: Its name.
        make_context: Gives the place's context, when the first of the modules is imported.

    Attributes:
        executors: The module that has the place's executor; empty where the standard library's is meant.
        functions: What else of ``concurrent.futures`` is not the standard library's: while a script is traced.
    """

    def __init__(self, place: str, make_context: Callable[[], Any]) -> None:
        self.place, self._make_context = place, make_context
        self.name = self.of(STANDARD)
        self.executors = _EXECUTORS.get(place, "")
        self.functions: dict[str, Callable[..., Any]] = {}
        self._methods = _METHODS.get(place, ("spawn", "fork", "forkserver"))
        self._method: str | None = None

    @cached_property
    def ctx(self) -> Any:
        """The place's context."""
        return self._make_context()

    def install(self) -> None:
        """Let the import system find the modules, and ``lab.share`` the place."""
        sys.meta_path.insert(0, self)
        sharing.enter(lambda obj: self.ctx.share(obj))

    def answers(self, module: str) -> bool:
        """Whether there is a stand-in for a module of the standard library."""
        if module.partition(".")[0] == STANDARD:
            return True
        return bool(self.executors) and (module == "concurrent" or f"{module}.".startswith(f"{FUTURES}."))

    def begin(self) -> None:
        """Before a program is run once more in this process: nobody has set a start method yet."""
        self._method = None

    def become(self, ctx: Any) -> None:
        """Offer another context of the same place from now on."""
        self.ctx = ctx
        if (top := sys.modules.get(self.name)) is not None:
            self._fill_top(top, multiprocessing)

    def of(self, module: str) -> str:
        """The name of the module that stands in for a standard one."""
        top, dot, rest = module.partition(".")
        return f"{top}@{self.place}{dot}{rest}"

    def compile(self, source: bytes, path: str) -> CodeType:
        """Compile a source file whose imports of what there is a stand-in for mean that.

        Raises:
            SyntaxError, ValueError: What Python raises for such a file.
        """
        if STANDARD.encode() not in source and b"concurrent" not in source:
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
        standard = self._standard(fullname)
        if self.of(standard) != fullname or not self.answers(standard.partition(".")[0]):
            return None
        if rest:
            if top == self.name:
                self._refuse_absent(rest, fullname)
            if importlib.util.find_spec(standard) is None:
                return None
        return ModuleSpec(fullname, self, is_package=not rest or standard == FUTURES)

    def _standard(self, name: str) -> str:
        """The module that one of this stand-in stands for."""
        top, dot, rest = name.partition(".")
        return top.removesuffix(f"@{self.place}") + dot + rest

    def _refuse_absent(self, rest: str, fullname: str) -> None:
        why = ABSENT.get((self.place, rest))
        if why and self._own(rest) is None:
            raise ImportError(f"the place {self.place!r} has no {STANDARD}.{rest}: {why}", name=fullname)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        _, _, rest = module.__name__.partition(".")
        standard = importlib.import_module(self._standard(module.__name__))
        if standard.__name__ in ("concurrent", FUTURES, f"{FUTURES}.process"):
            self._fill_lazily(module, standard)
        elif not rest:
            self._fill_top(module, standard)
        elif rest in REPLACED:
            self._fill(module, standard, self._own(rest))
        else:
            sys.modules[module.__name__] = standard  # the import system takes what lies there now

    def _fill_lazily(self, module: ModuleType, standard: ModuleType) -> None:
        """Fill a module that has the executor, or a module that has it, with everything else."""

        def attribute(name: str) -> Any:
            if name == EXECUTOR and standard.__name__ != "concurrent":
                ctx = self.ctx  # what it needs is there before it is used
                value = getattr(importlib.import_module(self.executors), EXECUTOR)
                if (traced := getattr(ctx, "traced_executor", None)) is not None:
                    value = traced(value)
            elif isinstance(value := getattr(standard, name), ModuleType) and value.__name__.startswith("concurrent."):
                return importlib.import_module(f"{module.__name__}.{name}")
            setattr(module, name, value)
            return value

        kept = {name: value for name, value in vars(standard).items() if not isinstance(value, ModuleType)}
        ours = {"__name__", "__loader__", "__spec__", "__path__", "__package__", "__getattr__", EXECUTOR}
        vars(module).update({name: value for name, value in kept.items() if name not in ours})
        if standard.__name__ == FUTURES:
            vars(module).update(self.functions)
        vars(module)["__getattr__"] = attribute

    def _own(self, rest: str) -> ModuleType | None:
        name = "lab.local" if self.place == "threads" else f"lab.{self.place}.{rest}"
        if importlib.util.find_spec(f"lab.{self.place}") is None and self.place != "threads":
            return None
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
            elif isinstance(mine, FunctionType) and mine.__module__ == getattr(own, "__name__", ""):
                value = mine
            setattr(module, name, value)

    def _fill_top(self, module: ModuleType, standard: ModuleType) -> None:
        names = {name: getattr(self.ctx, name, getattr(standard, name)) for name in multiprocessing.__all__}
        names |= {
            "__all__": list(multiprocessing.__all__),
            "__doc__": f"{STANDARD}, in the place {self.place!r}",
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
        raise AttributeError(f"module {STANDARD!r} in the place {self.place!r} has no attribute {name!r}")

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
            raise ValueError(f"cannot find context for {method!r} in the place {self.place!r}, which has {known}")


class _Redirected(ast.NodeTransformer):
    """Renames what there is a stand-in for in import statements; what they bind keeps its name."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [new for alias in node.names for new in self._renamed(alias)]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and self._stand_in.answers(node.module):
            node.module = self._stand_in.of(node.module)
        return node

    def _renamed(self, alias: ast.alias) -> list[ast.alias]:
        if not self._stand_in.answers(alias.name):
            return [alias]
        top = alias.name.partition(".")[0]
        names = [ast.alias(self._stand_in.of(alias.name), alias.asname or top)]
        if not alias.asname and "." in alias.name:  # "import a.b" imports a.b and binds a
            names.append(ast.alias(self._stand_in.of(top), top))
        return [ast.copy_location(name, alias) for name in names]
