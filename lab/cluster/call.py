"""A call of an executor on its way, packed by itself: what is wrong with it costs its own caller an error, and no other."""

from __future__ import annotations

import os
from concurrent.futures import process
from typing import Any

from lab import byvalue
from lab.buffers import Packer, load_nested, nested
from lab.cluster.failure import Failure
from lab.errors import WorkerLost
from lab.program import datafile, limits

_ExceptionWithTraceback: Any = vars(process)["_ExceptionWithTraceback"]  # private; its cause is what the stdlib's shows


class CallLost(WorkerLost, process.BrokenProcessPool):
    """This call was given up, and no other: its workers died, or it or its result cannot be unpickled where it arrived."""


class Call:
    """A call that is packed by itself, so that the worker unpickles it where an error can be told from the pool's own."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return arrived, nested(self._call)


def arrived(*parts: Any) -> tuple[Any, ...]:
    """What is in the place of a call where it arrives, for ``perform``; or of several."""
    return parts


def perform(packed: tuple[Any, ...], packer: Packer | None = None) -> tuple[Any, ...]:
    """In a worker: run a call; its packed outcome, (success, value). Nothing that a call raises ends the worker.

    Args:
        packed: The call, as it arrived.
        packer: Packs what it returns; one of its own if None.
    """
    try:
        return nested((True, _run(packed)), packer or Packer(kind=byvalue.ResultPickler))
    except BaseException as exc:  # noqa: BLE001 - SystemExit too is the caller's, as in the stdlib
        datafile.mark(exc)
        limits.mark(exc)
        return nested((False, Failure(_ExceptionWithTraceback(exc, exc.__traceback__))))


def _run(packed: tuple[Any, ...]) -> Any:
    try:
        fn, args, kwargs = load_nested(packed)
    except BaseException as exc:
        host = os.environ.get("CROSSHOST_HOST", "unknown")
        lacks = isinstance(exc, ModuleNotFoundError) and exc.name
        hint = f"Install {lacks} on every host of the fleet." if lacks else "Is the same code installed there?"
        raise CallLost(f"A call could not be loaded on host {host}: {exc!r}.", hint) from exc
    return fn(*args, **kwargs)


def outcome(packed: tuple[Any, ...]) -> tuple[bool, Any]:
    """What ``perform`` has packed: (success, value)."""
    try:
        success, value = load_nested(packed)
    except BaseException as exc:  # noqa: BLE001 - it belongs to the caller, not to the thread that reads the answers
        success, value = False, CallLost(f"The result of a call could not be loaded: {exc!r}.")
        value.__cause__ = exc
    if not success:
        datafile.explain(value)
    return success, value


def error(exc: BaseException) -> BaseException:
    """What a caller gets for an error of the pool's."""
    return CallLost(exc.message, exc.hint) if isinstance(exc, WorkerLost) else exc
