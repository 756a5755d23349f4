"""Ctrl-C and SIGTERM: an interrupted command closes what it holds, and is gone within seconds even if that hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, context
from types import FrameType
from typing import NoReturn

PATIENCE = 3.0
"""Seconds that an interrupted program has to close what it holds."""

NUDGE = 0.1
_holding = False
_held = 0  # the signal that came while we were holding; 0 for none
LOCAL = (context.SpawnProcess, context.ForkServerProcess, context.ForkProcess)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread so that everything is closed as for Ctrl-C."""


def listen() -> None:
    """From now on, raise KeyboardInterrupt in the main thread for Ctrl-C and SIGTERM, and see that it is heeded.

    For a process whose only work is the command, as it is gone PATIENCE seconds after the first signal, whoever sent that.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # else it is ignored: a shell's background job
        signal.signal(signal.SIGINT, _interrupt)
    if not hasattr(signal, "SIGALRM"):
        return  # on Windows, where a wait can neither be woken nor a signal be told through a pipe
    signal.signal(signal.SIGALRM, lambda *_: None)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signal watch", daemon=True).start()


@contextmanager
def deferred() -> Iterator[None]:
    """Keep the interruption out of the block, in which something would be left half done; it comes at the end of it.

    For the main thread. PATIENCE counts from the signal all the same, so the block cannot hold up the end for ever.
    """
    global _holding, _held
    _holding = True
    try:
        yield
    finally:
        _holding = False
        signum, _held = _held, 0
    if signum:
        _interrupt(signum, None)


def leave(code: int) -> NoReturn:
    """End now, whatever a broken or interrupted program has left.

    The ordinary end of Python waits for threads, which nothing can stop, and for pools, whose workers may have died
    with the pool's lock in their hands. Here the children on this host are killed, and nobody is waited for. What is
    on other hosts ends by its leases; named semaphores are removed by multiprocessing's resource tracker.
    """
    _kill_children()
    time.sleep(0.05)  # a pool that still runs has started new workers by now
    _kill_children()
    os._exit(code)


def _kill_children() -> None:
    for child in active_children():
        if isinstance(child, LOCAL):
            child.kill()


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    """Raise, the first time. Whoever sends a second signal does not want to wait."""
    global _held
    if _holding:
        _held = signum
        return
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: leave(128 + signum))
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def _watch(reader: int) -> None:
    """Wait, in a thread of its own, for the signal that Python's C handler reports here; then count the seconds.

    Two things can keep the main thread from ending. It may be about to block on a lock when the signal comes, and then
    sleep with the signal noted but not looked at; a second signal, SIGALRM, wakes it. And closing may hang, for a pool
    whose worker was interrupted with a lock in its hands waits for that lock for ever; after PATIENCE it is left.
    """
    while (signum := os.read(reader, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
        pass
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(NUDGE)
        os.kill(os.getpid(), signal.SIGALRM)  # the kernel gives it to the main thread, which blocks no signal
    leave(128 + signum)
