"""A part of the embedded fleet: a process forked from the fleet's own.

That one has one thread, so that forking it is safe, and has imported what hosts need, so that they share its memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from worker.lifeline import end_with_parent

DEFAULTS = (signal.SIGTERM, signal.SIGHUP)
"""Signals for which a fleet has handlers that its parts must not have; SIGINT is a third, and Python has one for it."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Let no signal in, but after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Part:
    """A process that does one thing, has a log of its own, and dies with the process that made it.

    Signals are to be held while it is made (``signals_held``). Excluded by that: one that comes while the child still has
    the fleet's handlers, and has it stop its own siblings; and one after which the fleet does not know what it has forked.

    Args:
        work: What it does; when that returns or raises, the process ends.
        log: File to which its output is added.
    """

    def __init__(self, work: Callable[[], object], log: Path) -> None:
        self._ended = False
        fleet = os.getpid()
        log.touch(mode=0o600)
        sys.stdout.flush()  # excluded: what waits in a buffer here, written by the child a second time
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, log, fleet)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._look(os.WNOHANG)

    def tell(self, signum: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended, as its number may be somebody else's by now."""
        if not self.ended():
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it, and wait until it has."""
        self.tell(signal.SIGKILL)
        self._look(0)

    def wait(self, timeout: float) -> None:
        """Wait for its end, but not for longer than some seconds."""
        deadline = time.monotonic() + timeout
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.01)  # Linux and macOS have no event for this in common

    def _look(self, how: int) -> bool:
        if not self._ended:
            try:
                self._ended = os.waitpid(self.pid, how)[0] == self.pid
            except (
                ChildProcessError
            ):  # SIGCHLD is ignored here, as whoever started the fleet had it: nothing is left to wait for
                self._ended = True
        return self._ended


def _become(work: Callable[[], object], log: Path, fleet: int) -> NoReturn:
    """In the child: what an interpreter of its own would begin with; then the work."""
    code = 1
    try:
        for signum in DEFAULTS:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        end_with_parent(fleet)
        _redirect(log)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may climb into the frames of the fleet, which would stop the fleet
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    """Standard input from nowhere, output to the log: the fleet's own pipes belong to whoever started it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    for theirs, standard in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(theirs, standard)
    os.close(nothing)
    os.close(out)
