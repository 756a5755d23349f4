"""How a command ends: errors in words, interruptions in silence, and nothing left running."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from lab.errors import ExitCode, LabError

if TYPE_CHECKING:
    from producer.runs import Run

PATIENCE = 3.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread so that everything is closed as for Ctrl-C."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn the lab's errors into words and an exit code, Ctrl-C into 130 and SIGTERM into 143."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    except LabError as error:
        explain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C, and the prompt should not follow on that line
        leave(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))


def explain(error: LabError) -> None:
    """Say on stderr what happened, why, what to type next, and the exit code by name."""
    lines = [f"error: {error.message}", *error.hint.splitlines()]
    lines.append(f"(exit code {error.exit_code.value}: {spoken(error.exit_code)})")
    print("\n".join(lines), file=sys.stderr)


def spoken(code: ExitCode) -> str:
    """The name of an exit code as one says it."""
    return code.name.lower().replace("_", " ")


def finish(runs: list[Run]) -> NoReturn:
    """End the command: 0 if every claim held, else the code of the first of the lab's own errors, else 1."""
    failed = [run for run in runs if not run.ok]
    code = next((run.exit_code for run in failed if run.exit_code), ExitCode.CHECK_FAILED) if failed else ExitCode.OK
    if any(run.error for run in runs):
        leave(code)
    sys.exit(code)


def leave(code: int) -> NoReturn:
    """End now, whatever an interrupted program has left: its processes are terminated, its threads not waited for.

    The ordinary end of Python would wait for both, and a thread that waits for a dead peer never comes.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    watchdog = threading.Timer(PATIENCE, os._exit, [code])
    watchdog.daemon = True
    watchdog.start()
    for child in active_children():
        if not child.daemon:  # the daemons are terminated by the exit functions, the pools that replace them first
            child.terminate()
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _raise_terminated(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated
