"""Text for people and JSON for programs, written so that a closed pipe ends the command in silence."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 110
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text to a stream, stdout by default, and flush it.

    Raises:
        SystemExit: The reader has gone (``producer ... | head``): with 141, as the shell says it of other programs.
    """
    stream = stream or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Python flushes the stream once more when it ends; that must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(128 + signal.SIGPIPE)


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
    console = Console(file=stream, color_system=colours, highlight=False, emoji=False)
    console.width = min(console.width, WIDEST)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()), stream)


def duration(seconds: float) -> str:
    """Seconds to three digits in the unit that reads best: ``210 ns``, ``134 us``, ``2.40 ms``, ``1.25 s``."""
    seconds = float(f"{seconds:.3g}")
    unit, size = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
    number = seconds / size
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {unit}"
