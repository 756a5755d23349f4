"""How a command ends: errors in words, interruptions in silence, and nothing left running."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import click

from lab.errors import ExitCode, LabError
from producer import interrupt

if TYPE_CHECKING:
    from producer.runs import Run

OWN_CODES = 100
"""What ``producer run`` adds to an exit code of its own, so that its script's is not taken for it."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn the lab's errors into words and an exit code, Ctrl-C into 130 and SIGTERM into 143."""
    interrupt.listen()
    try:
        yield
    except LabError as error:
        explain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C, and the prompt should not follow on that line
        _flush()
        interrupt.leave(128 + (signal.SIGTERM if isinstance(stop, interrupt.Terminated) else signal.SIGINT))


@contextmanager
def apart() -> Iterator[None]:
    """End with an exit code that is not taken for a script's (``OWN_CODES``)."""
    try:
        yield
    except LabError as error:
        explain(error, OWN_CODES)
        sys.exit(OWN_CODES + error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(OWN_CODES + ExitCode.USAGE)


def explain(error: LabError, added: int = 0, where: str = "") -> None:
    """Say on stderr what happened, why, what to type next, and the exit code by name.

    Args:
        error: What happened.
        added: What the command adds to the lab's exit codes.
        where: The line of the program at which it happened, if that helps.
    """
    lines = [f"error: {error.message}", *error.hint.splitlines(), *([f"(at {where})"] if where else [])]
    lines.append(f"(exit code {error.exit_code.value + added}: {spoken(error.exit_code)})")
    print("\n".join(lines), file=sys.stderr)


def spoken(code: ExitCode) -> str:
    """The name of an exit code as one says it."""
    return code.name.lower().replace("_", " ")


def finish(runs: list[Run]) -> NoReturn:
    """End the command: 0 if every claim held, else the code of the first of the lab's own errors, else 1."""
    failed = [run for run in runs if not run.ok]
    code = next((run.exit_code for run in failed if run.exit_code), ExitCode.CHECK_FAILED) if failed else ExitCode.OK
    if any(run.error for run in runs):
        _flush()
        interrupt.leave(code)  # a program that broke off may have left threads and children that wait for it
    sys.exit(code)


def _flush() -> None:
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
