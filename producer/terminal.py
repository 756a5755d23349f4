"""Ctrl-C at a terminal reaches every process of a program: those on hosts too, which no process group of it has.

The processes of a pool are left to it: it ends them with the program. An executor would first wait for what they run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lab.errors import LabError


def pass_interrupts_on(made: Callable[[], Any]) -> None:
    """From now on, if this process has a terminal. It is done beside what the program itself makes of the signal.

    Args:
        made: The program's context, None as long as there is none.
    """
    if not any(os.isatty(fd) for fd in (0, 1, 2)):
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before != -1:  # somebody else reads there
        signal.set_wakeup_fd(before)
        return
    threading.Thread(target=_watch, args=(reader, made), name="crosshost-terminal", daemon=True).start()


def _watch(reader: int, made: Callable[[], Any]) -> None:
    while signals := os.read(reader, 1):
        if signals[0] == signal.SIGINT and _in_foreground() and (ctx := made()) is not None:
            _interrupt(ctx)


def _in_foreground() -> bool:
    """Whether a Ctrl-C comes here: else somebody has sent the signal to this process, and means no other."""
    with suppress(OSError), open("/dev/tty", "rb", buffering=0) as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False


def _interrupt(ctx: Any) -> None:
    with suppress(LabError):
        ctx.interrupt_children()
    for unfinished in list(ctx.pools):
        unfinished.interrupted()
