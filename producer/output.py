"""Text for people and JSON for programs, written so that a closed pipe ends the command in silence."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO

from lab.errors import ExitCode, LabError

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 110
BROKEN_PIPE = 128 + 13
"""What the shell says of a program that SIGPIPE ended; not every system has that signal."""
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


class OutputFailed(LabError, OSError):
    """What was found can not be written, or no longer."""

    exit_code = ExitCode.OUTPUT_FAILED


@contextmanager
def written(name: str) -> Iterator[None]:
    """Turn what the system says of a file that is written into an error that names it.

    Raises:
        OutputFailed: It cannot be written.
    """
    try:
        yield
    except OutputFailed:
        raise
    except OSError as exc:
        raise OutputFailed(f"Cannot write {name!r}: {exc.strerror or exc}.", "Name another file.") from exc


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text to a stream, stdout by default, and flush it.

    Raises:
        SystemExit: The reader has gone (``producer ... | head``): with 141, as the shell says it of other programs.
        OutputFailed: It cannot be written.
    """
    stream = stream or sys.stdout
    with _written_to(stream):
        stream.write(text)
        stream.flush()


@contextmanager
def _written_to(stream: TextIO) -> Iterator[None]:
    try:
        with written(getattr(stream, "name", "the output")):
            yield
    except OutputFailed as exc:
        # Python flushes the stream once more when it ends; that must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(exc.__cause__, BrokenPipeError):
            sys.exit(BROKEN_PIPE)
        raise


def write_json(value: Any, stream: TextIO | None = None) -> None:
    """Write a value as indented JSON."""
    write(json.dumps(plain(value), indent=2) + "\n", stream)


def plain(value: Any) -> Any:
    """The value in JSON's own types: what is not finite becomes null, what JSON does not know its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def write_rich(parts: list[RenderableType], stream: TextIO | None = None) -> None:
    """Write tables and texts of rich; without colour when NO_COLOR is set, without any code when not to a terminal."""
    from rich.console import Console

    stream = stream or sys.stdout
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(file=stream, color_system=colours, highlight=False, emoji=False, markup=False)
    console.width = min(console.width, WIDEST)
    with _written_to(stream), console.capture() as captured:  # which flushes the stream
        for part in parts:
            # a text that must not be broken, as it is to be copied, goes beyond the width
            console.print(part, soft_wrap=getattr(part, "no_wrap", None) is True)
    write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()), stream)


def counted(number: int, noun: str) -> str:
    """A number of things in words: ``1 process``, ``3 processes``."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """Seconds to three digits in the unit that reads best: ``210 ns``, ``134 us``, ``2.40 ms``, ``1.25 s``."""
    seconds = float(f"{seconds:.3g}")
    unit, size = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
    number = seconds / size
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {unit}"
