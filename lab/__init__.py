"""Crosshost: one concurrency lab, three places to run it.

    ctx = lab.get_context("threads" | "processes" | "cluster")

gives an object with the names of ``multiprocessing``. A program that takes its ``Process``, ``Queue``, ``Lock``,
``Pool`` ... from it runs unchanged on threads of this process, on processes of this host, and on the hosts of a fleet.

The portable subset, the same that the ``spawn`` start method asks for:

* targets are functions at module level, and the main module has an ``if __name__ == "__main__":`` guard;
* primitives travel only as ``Process(args=)``, ``Pool(initargs=)`` or inside another primitive;
* arguments and results pickle, and nothing is shared through globals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.bar import progress
from lab.limit import limited
from lab.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

__all__ = [
    "MORE_PLACES",
    "PLACES",
    "__version__",
    "atomic_add",
    "get_context",
    "get_executor",
    "limited",
    "progress",
    "share",
]

PLACES = ("threads", "processes", "cluster")

MORE_PLACES = ("interpreters", "free-threaded")
"""Places of some Pythons only: interpreters of one process (3.14 and later), and threads of a build without the GIL."""


def __getattr__(name: str) -> Any:
    if name == "joblib":  # a module that needs what Crosshost does not
        import importlib

        return importlib.import_module("lab.joblib")
    raise AttributeError(f"module 'lab' has no attribute {name!r}")


def get_context(place: str, start_method: str | None = None) -> Any:
    """The multiprocessing context of a place; it has an attribute ``place`` with this name.

    Args:
        place: One of ``PLACES``; ``interpreters``, where Python has them; or ``explored``, where a program runs while
            ``producer explore`` tries every order.
        start_method: How ``processes`` starts a child; CROSSHOST_START_METHOD if None, and ``spawn`` if that is not set,
            which is the strictest and the most like a cluster.

    Raises:
        ValueError: There is no such place or start method, or (``NotHere``) not in this Python.
    """
    if place == "threads":
        from lab.local import ThreadContext

        return ThreadContext()
    if place == "processes":
        from lab.local import process_context
        from lab.settings import Settings

        return process_context(start_method or Settings.from_env().start_method)
    if place == "cluster":
        from lab.cluster.context import default_context

        return default_context()
    if place == "interpreters":
        from lab.interpreters.context import interpreter_context

        return interpreter_context()
    if place == "explored":
        from lab.explored.context import ExploredContext

        return ExploredContext()
    raise ValueError(f"there is no place {place!r}; the places are {', '.join(PLACES)}")


def get_executor(
    place: str, max_workers: int | None = None, initializer: Any = None, initargs: Iterable[Any] = ()
) -> Executor:
    """An executor of ``concurrent.futures`` for a place: the stdlib's for threads and processes, ours for the cluster.

    Args:
        place: One of ``PLACES``.
        max_workers: Threads or processes; as many as the place has room for when None.
        initializer: Called in each worker when it starts.
        initargs: Arguments for it.

    Raises:
        ValueError: There is no such place.
    """
    ctx = get_context(place)
    if place == "cluster":
        from lab.cluster.futures import ClusterExecutor

        return ClusterExecutor(max_workers, ctx, initializer, initargs)
    from concurrent import futures

    if place == "threads":
        return futures.ThreadPoolExecutor(max_workers, "", initializer, tuple(initargs))
    return futures.ProcessPoolExecutor(max_workers, ctx, initializer, tuple(initargs))


def atomic_add(value: Any, amount: float) -> None:
    """Add to a shared Value so that no concurrent update is lost.

    On the cluster this is one command, executed by Redis between two others. Where memory is shared there is no such
    command in Python, so the value's own lock is held for the time of the addition.
    """
    if hasattr(value, "add"):
        value.add(amount)
    else:
        with value.get_lock():
            value.value += amount


def share(obj: Any) -> Any:
    """What ``ctx.share`` returns, for a script that has no ``ctx``: in the place where ``producer run`` runs it.

    Elsewhere, between processes of this host.
    """
    from lab import sharedfile, sharing

    return (sharing.here() or sharedfile.share)(obj)
