"""How a command ends: errors in words, interruptions in silence, and nothing left running."""

from __future__ import annotations

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


class BadUsage(LabError, ValueError):
    """A command line that cannot be understood."""

    exit_code = ExitCode.USAGE

    @classmethod
    def of(cls, error: click.UsageError) -> BadUsage:
        """What click has to say, in the words of all errors."""
        command = error.ctx.command_path if error.ctx else "producer"
        return cls(error.format_message(), f"To read what it takes: {command} --help")


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn click's errors into the lab's; no arguments at all are a question, and the help is the answer."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise BadUsage.of(error) from error


@contextmanager
def ending(added: int = 0) -> Iterator[None]:
    """Turn the lab's and click's errors into words and an exit code.

    Args:
        added: What the command adds to the exit codes (``OWN_CODES``).
    """
    try:
        with _in_words():
            yield
    except LabError as error:
        explain(error, added)
        sys.exit(added + error.exit_code)


@contextmanager
def explained() -> Iterator[None]:
    """Likewise, and Ctrl-C into 130 and, where the process listens (``interrupt.listen``), SIGTERM into 143."""
    try:
        with ending():
            yield
    except KeyboardInterrupt as stop:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C, and the prompt should not follow on that line
        _flush()
        terminated = isinstance(stop, interrupt.Terminated)
        interrupt.leave(ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED)


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


def table() -> str:
    """The exit codes, one a line."""
    return "\n".join(f"{code.value:>5}  {spoken(code)}: {code.meaning}" for code in ExitCode)


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
