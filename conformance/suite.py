"""The suite, executed in this module with ``multiprocessing`` bound to a context of the lab.

The code comes from the installed interpreter; ``import multiprocessing`` in it gives ``Package`` below, which is what a
program does that replaces the package by a context. As the code runs in this module, its functions and classes pickle by
reference as ``conformance.suite.NAME``, and a child that imports them gets the same substitution.

Five details are adapted, where a helper of the suite reaches for the inside of the stdlib rather than for what is tested:

1. ``check_invariant`` of the Condition tests looks at the stdlib's semaphores where the Condition has them.
2. The counter of the Barrier tests is a ``Value`` of the context (or a manager's list), not a memory map of one host.
3. ``TestSyncManagerTypes`` takes the context's ``Manager()`` for ``SyncManager()`` and its ``start()``.
4. The mixins do not look for dangling threads, nor at a manager's private counts, when a class ends; and no child is told
   to signal its parent by process id.
5. ``close_queue`` closes whatever has ``close`` and ``join_thread``.
"""

from __future__ import annotations

import builtins
import importlib
import multiprocessing as _stdlib
import os as _os
import pkgutil
import sys as _sys
import types
import unittest as _unittest
from typing import Any

import lab
from conformance.source import NAME, PLACE, spec

SUBMODULES = frozenset(module.name for module in pkgutil.iter_modules(_stdlib.__path__))


class Package(types.ModuleType):
    """What ``import multiprocessing`` gives in the suite: the names of the context, and the stdlib's for the rest."""

    def __init__(self, context: Any) -> None:
        super().__init__("multiprocessing")
        self.context_of_lab = context

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            return getattr(_stdlib, name)
        if name in SUBMODULES:
            real = importlib.import_module(f"multiprocessing.{name}")
            return Shared(real, self.context_of_lab) if name == "sharedctypes" else real
        return getattr(self.context_of_lab if hasattr(self.context_of_lab, name) else _stdlib, name)


class Shared(types.ModuleType):
    """``multiprocessing.sharedctypes``, whose functions belong to a context."""

    def __init__(self, real: Any, context: Any) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(vars(real))
        self.__dict__.update({name: getattr(context, name) for name in ("Value", "Array", "RawValue", "RawArray")})


def _substituting(package: Package) -> Any:
    real_import = builtins.__import__

    def substitute(name: str, globs: Any = None, locs: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        found = real_import(name, globs, locs, fromlist, level)
        head, _, tail = name.partition(".")
        if level or head != "multiprocessing":
            return found
        return getattr(package, tail) if tail and fromlist else package

    return substitute


def _load(package: Package) -> dict[str, Any]:
    """Execute the suite in this module's namespace, which it then shares with what stands here."""
    code, names = spec().loader.get_code(NAME), globals()
    names["__builtins__"] = {**vars(builtins), "__import__": _substituting(package)}
    names["__file__"] = spec().origin
    exec(code, names)  # noqa: S102 - the interpreter's own module
    return names


# A process on the cluster is in a run; one of this host need not load what would tell, which takes longer than its work.
_runs = _sys.modules.get("lab.store.run")
_PLACE = "cluster" if _runs and _runs.current() else _os.environ.get(PLACE, "cluster")
_PACKAGE = Package(lab.get_context(_PLACE))
_SUITE = _load(_PACKAGE)


def close_queue(queue: Any) -> None:
    """Adaptation 5."""
    if hasattr(queue, "close") and hasattr(queue, "join_thread"):
        queue.close()
        queue.join_thread()


class Counter:
    """Adaptation 2: counts what is appended, on every host."""

    def __init__(self) -> None:
        self._value = _PACKAGE.Value("i", 0)

    def append(self, _: object) -> None:
        """Count one."""
        with self._value.get_lock():
            self._value.value += 1

    def __len__(self) -> int:
        return int(self._value.value)


class StartedManager:
    """Adaptation 3."""

    def start(self) -> None:
        """Start the context's manager."""
        self._manager = _PACKAGE.Manager()

    def __getattr__(self, name: str) -> Any:
        if name == "_manager":
            raise AttributeError(name)
        return getattr(self._manager, name)


def _check_invariant(base: Any) -> Any:
    def check_invariant(self: Any, condition: Any) -> None:
        if hasattr(condition, "_sleeping_count"):
            base.check_invariant(self, condition)

    return check_invariant


def _dummy_list(self: Any) -> Any:
    return self.manager.list() if self.TYPE == "manager" else Counter()


class _Plain:
    """Adaptation 4."""

    manager: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        if getattr(cls, "TYPE", "") == "manager":
            cls.manager = _PACKAGE.Manager()

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.manager is not None:
            cls.manager.shutdown()
            cls.manager.join()
            cls.manager = None


def _mixin(kind: str) -> type:
    """The suite's own mixin, with what is adapted; for threads its names are the context's."""
    names = {name: value for name, value in vars(_SUITE[f"{kind.capitalize()}Mixin"]).items() if name[0] != "_"}
    for name in ("setUpClass", "tearDownClass"):
        names.pop(name, None)
    if kind == "threads":
        own = {
            name: getattr(_PACKAGE.context_of_lab, name, None) for name in names if name not in ("TYPE", "connection")
        }
        names |= {n: v if isinstance(v, type) else staticmethod(v) for n, v in own.items() if v is not None}
    return type(kind.capitalize(), (_Plain,), names)


def _build() -> dict[str, type]:
    base_case, mixins = _SUITE["BaseTestCase"], {kind: _mixin(kind) for kind in ("processes", "manager", "threads")}
    wanted = ("threads",) if _PLACE == "threads" else ("processes", "manager")
    found: dict[str, type] = {}
    for name, base in list(_SUITE.items()):
        if not isinstance(base, type) or base.__module__ != __name__:
            continue
        if issubclass(base, base_case):
            for kind in () if base is base_case else base.ALLOWED_TYPES:  # type: ignore[attr-defined]
                if kind not in wanted:
                    continue
                own: dict[str, Any] = {"__module__": __name__}
                if name == "_TestCondition":
                    own["check_invariant"] = _check_invariant(base)
                if name == "_TestBarrier":
                    own["DummyList"] = _dummy_list
                new = f"With{kind.capitalize()}{name[1:]}"
                found[new] = type(new, (base, mixins[kind], _unittest.TestCase), own)
        elif issubclass(base, _unittest.TestCase) and _PLACE != "threads":
            found[name] = base
    if "TestSyncManagerTypes" in found:
        found["TestSyncManagerTypes"].manager_class = StartedManager  # type: ignore[attr-defined]
    globals().update(found)
    return found


CLASSES = _build()


def tests() -> list[tuple[str, str]]:
    """Class and name of every test of the place."""
    loader = _unittest.TestLoader()
    return [(name, test) for name, kind in CLASSES.items() for test in loader.getTestCaseNames(kind)]


def begin() -> None:
    """What the suite does before its first test."""
    _PACKAGE.get_logger().setLevel(_SUITE["LOG_LEVEL"])
    _SUITE["util"].get_temp_dir()
