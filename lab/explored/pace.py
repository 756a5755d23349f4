"""Pace: notices a worker that computes, and comes to no operation at which it could be stopped."""

from __future__ import annotations

import ctypes
import faulthandler
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 10.0
"""Seconds that a worker may compute between two operations."""
SLOWER = 3
"""How many times the longest that any took before: some programs have much to compute, and some machines are slow."""
EVERY = 0.25
"""Seconds between two looks."""

HELD = 2
"""How many times as long nobody else may come to run; a worker that only computes has been stopped before."""

watch: int | None = None
"""A file to which is written where all threads stand when nobody comes to run; the process is ended then. None: it waits."""
_longest = 0.0


class Pace:
    """Looks at a run from a thread of its own, as long as the ``with`` block goes on.

    Args:
        where: What tells that the run has got further, when it has.
        stop: Called with the seconds when it has not for too long; and again, as long as it does not end.
    """

    def __init__(self, where: Callable[[], Any], stop: Callable[[float], None]) -> None:
        self._where, self._stop, self._over = where, stop, threading.Event()
        self._thread = threading.Thread(target=self._look, name="pace", daemon=True)

    def _look(self) -> None:
        global _longest
        before, computed, looked = self._where(), 0.0, time.monotonic()
        while not self._over.wait(EVERY):
            _watch()
            now, began = self._where(), looked
            looked = time.monotonic()
            if now != before:
                _longest, before, computed = max(_longest, computed), now, 0.0
                continue
            computed += min(looked - began, 2 * EVERY)  # Excluded: what this host slept is held against the program
            if computed >= max(PATIENCE, SLOWER * _longest):
                self._stop(computed)
                computed = 0.0

    def __enter__(self) -> None:
        _watch()
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        if watch is not None:
            faulthandler.cancel_dump_traceback_later()


def _watch() -> None:
    """From now on, once more: nobody runs Python for so long only if C code holds the interpreter."""
    if watch is not None:
        faulthandler.dump_traceback_later(HELD * max(PATIENCE, SLOWER * _longest), exit=True, file=watch)


def raise_in(thread: threading.Thread | None, exception: type[BaseException] | None) -> None:
    """Raise an exception in a thread as soon as that runs Python; None takes back one that it has not met yet."""
    ident = ctypes.c_ulong(thread.ident or 0 if thread else 0)
    value = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, value)
