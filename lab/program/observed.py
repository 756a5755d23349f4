"""A program that is watched from inside.

Each of its processes on this host writes to a file, a line of JSON each, what nobody would hear of: an exception in a
result that nobody fetches, a pool's thread or worker that has ended, how long the calls of a pool take by themselves. And
each tells, on a signal, where its threads are (``faulthandler``).

It goes to forked children by itself, and to spawned ones with what the standard library tells them before they begin.
"""

from __future__ import annotations

import faulthandler
import functools
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import _base, process
from multiprocessing import current_process, pool, spawn
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

SIGNAL = getattr(signal, "SIGUSR1", None)
"""Asks a process where its threads are; not on Windows."""
AT_ONCE = 200
"""So many calls of a pool are told of at once, later ones together."""
TOGETHER = 0.05
"""Seconds of later calls that are told of together."""


class Observer:
    """What one process writes.

    Args:
        path: The file; stacks go to ``path.PID``.
        script: Absolute path of the script, whose lines are told.
    """

    def __init__(self, path: str, script: str) -> None:
        self.path, self.script = path, script
        self._numbers = itertools.count()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.begin()

    def begin(self) -> None:
        """Say that this process is there, and be ready to be asked."""
        if SIGNAL is not None:
            faulthandler.register(SIGNAL, open(f"{self.path}.{os.getpid()}", "w"), all_threads=True)
        self.note("process", name=current_process().name)

    def note(self, event: str, **more: Any) -> None:
        """Write one thing; whole, as other processes write to the same file."""
        os.write(self._file, (json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n").encode())

    def number(self) -> str:
        """A name for something of this process."""
        return f"{os.getpid()}-{next(self._numbers)}"

    def line(self) -> int:
        """The line of the script that led here; 0 if none did."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == self.script:
                return frame.f_lineno
            frame = frame.f_back
        return 0


_observer: Observer | None = None


def note(event: str, **more: Any) -> None:
    """Write one thing, if somebody observes."""
    if _observer is not None:
        _observer.note(event, **more)


class Entry:
    """Goes to a spawned child; when it is unpickled there, that one is observed as well."""

    def __init__(self, path: str, script: str) -> None:
        self.path, self.script = path, script

    def __reduce__(self) -> tuple[Any, ...]:
        return observe, (self.path, self.script)


def observe(path: str, script: str) -> None:
    """Observe this process, and those that it starts.

    Args:
        path: Where it is written.
        script: Absolute path of the script.
    """
    global _observer
    _observer = Observer(path, script)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_observer.begin)
    stdlib: Any = spawn
    told = stdlib.get_preparation_data
    stdlib.get_preparation_data = lambda name: {**told(name), "crosshost observed": Entry(path, script)}
    _wrap(BaseProcess, "_bootstrap", _named)
    _results()
    _threads(_observer)
    _workers(_observer)


# results that fail, and are not fetched


def _results() -> None:
    for cls in (pool.ApplyResult, pool.MapResult):
        _wrap(cls, "_set", _noted_result)
    _wrap(pool.ApplyResult, "__init__", _asked)
    _wrap(_base.Future, "__init__", _asked)
    for name in ("get", "successful"):
        _wrap(pool.ApplyResult, name, _fetched)
    for name in ("result", "exception", "add_done_callback", "cancel"):
        _wrap(_base.Future, name, _fetched)
    _wrap(_base.Future, "set_exception", _noted_exception)


def _named(inner: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    note("process", name=self.name)
    return inner(self, *args, **kwargs)


def _wrap(cls: Any, name: str, around: Callable[..., Any]) -> None:
    inner = vars(cls)[name]

    @functools.wraps(inner)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(inner, self, *args, **kwargs)

    setattr(cls, name, wrapped)


def _asked(inner: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    if _observer is not None:
        self.crosshost_id, self.crosshost_line = _observer.number(), _observer.line()
    return inner(self, *args, **kwargs)


def _fetched(inner: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    if not getattr(self, "crosshost_fetched", False):
        self.crosshost_fetched = True
        if hasattr(self, "crosshost_id"):
            note("fetched", id=self.crosshost_id)
    return inner(self, *args, **kwargs)


def _noted_result(inner: Callable[..., Any], self: Any, i: int, obj: tuple[bool, Any]) -> Any:
    success, value = obj
    if not success and getattr(self, "_error_callback", None) is None:
        _failed(self, value)
    return inner(self, i, obj)


def _noted_exception(inner: Callable[..., Any], self: Any, exception: BaseException | None) -> Any:
    _failed(self, exception)
    return inner(self, exception)


def _failed(result: Any, error: BaseException | None) -> None:
    if hasattr(result, "crosshost_id"):
        note(
            "failed", id=result.crosshost_id, line=result.crosshost_line, error=f"{type(error).__name__}: {error}"[:200]
        )


# threads that end by an exception


def _threads(observer: Observer) -> None:
    hook = threading.excepthook

    def told(args: Any) -> None:
        lines, functions = [], []
        tb = args.exc_traceback
        while tb is not None:
            functions.append(tb.tb_frame.f_code.co_name)
            if tb.tb_frame.f_code.co_filename == observer.script:
                lines.append(tb.tb_lineno)
            tb = tb.tb_next
        observer.note(
            "thread raised",
            thread=args.thread.name if args.thread else "",
            functions=functions,
            line=lines[-1] if lines else 0,
            error=f"{args.exc_type.__name__}: {args.exc_value}"[:200],
        )
        hook(args)

    threading.excepthook = told


# workers of pools: those that end, and how long calls take by themselves


def _workers(observer: Observer) -> None:
    stdlib: Any = pool
    executors: Any = process
    _wrap(pool.Pool, "__init__", _made)
    _wrap(process.ProcessPoolExecutor, "__init__", _made)
    stdlib.worker = _of_pool
    executors._process_worker = _of_executor
    exited = stdlib.Pool._join_exited_workers

    def join_exited_workers(workers: list[Any]) -> bool:
        for each in workers:
            if getattr(each, "exitcode", None) not in (None, 0):
                observer.note("worker ended", name=each.name, code=each.exitcode)
        found: bool = exited(workers)
        return found

    stdlib.Pool._join_exited_workers = staticmethod(join_exited_workers)


def _made(inner: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    if _observer is not None:
        note("pool made", line=_observer.line(), at=time.monotonic())
    return inner(self, *args, **kwargs)


_worker, _process_worker = pool.worker, process._process_worker  # type: ignore[attr-defined]


def _of_pool(inqueue: Any, *args: Any, **kwargs: Any) -> Any:
    return _worker(_Timed(inqueue), *args, **kwargs)


def _of_executor(call_queue: Any, *args: Any, **kwargs: Any) -> Any:
    queue: Any = _Timed(call_queue)
    return _process_worker(queue, *args, **kwargs)


class _Timed:
    """A queue of calls, of which each is timed when it is made."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._told, self._calls, self._seconds, self._since = 0, 0, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        task = self._queue.get(*args, **kwargs)
        if isinstance(task, tuple):
            job, i, func, given, named = task
            number = len(given[0][1]) if getattr(func, "__name__", "") in ("mapstar", "starmapstar") else 1
            return job, i, functools.partial(self._timed, number, func), given, named
        if task is not None and hasattr(task, "fn"):
            chunk = getattr(getattr(task.fn, "func", None), "__name__", "") == "_process_chunk"
            task.fn = functools.partial(self._timed, len(task.args[0]) if chunk else 1, task.fn)
        return task

    def _timed(self, number: int, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = time.monotonic()
        try:
            return func(*args, **kwargs)
        finally:
            ended = time.monotonic()
            self._calls += number
            self._seconds += ended - begun
            self._told += 1
            if self._told <= AT_ONCE or ended - self._since > TOGETHER:
                note("calls", count=self._calls, seconds=self._seconds, until=ended)
                self._calls, self._seconds, self._since = 0, 0.0, ended
