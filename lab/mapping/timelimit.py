"""A limit on the time of one call, as far as a process can keep one by itself.

In the main thread of a process: after ``seconds`` the alarm signal raises in the call, which ends whatever waits or runs
Python code. A call that does not heed it (C code that never returns to the interpreter, a bare ``except:``) ends with its
process, ``GRACE`` seconds later: ``faulthandler``'s watchdog is a thread in C, which needs no GIL.

In any other thread there is no such signal, and nothing happens: a thread cannot be interrupted from outside.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import IO

GRACE = 1.0
"""Seconds between the alarm and the end of the process."""

_armed = False


class Overdue(BaseException):
    """The alarm; not an Exception, so that ``except Exception`` in the call lets it pass."""


class Late(TimeoutError):
    """The time was up; its cause shows where the call was."""


@contextmanager
def limit(seconds: float | None) -> Iterator[None]:
    """Run the block for at most so many seconds; None for no limit.

    Raises:
        Late: The time was up.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        try:
            _arm(seconds)
            yield
        finally:
            _disarm()
    except Overdue as alarm:
        # Excluded: the alarm coming in the middle of _disarm, which then leaves the watchdog on. It comes only once.
        _disarm()
        raise Late(f"not done after {seconds:g} s") from alarm


def _arm(seconds: float) -> None:
    global _armed
    signal.signal(signal.SIGALRM, _alarm)
    _armed = True
    # The stack that it dumps is for the most part the worker's own, and comes once for each death: not shown.
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=_nowhere())
    signal.setitimer(signal.ITIMER_REAL, seconds)


@cache
def _nowhere() -> IO[str]:
    return open(os.devnull, "w")


def _disarm() -> None:
    global _armed
    _armed = False  # first: an alarm that is already on its way then finds nothing to interrupt
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


def _alarm(_signum: int, _frame: FrameType | None) -> None:
    if _armed:
        raise Overdue
