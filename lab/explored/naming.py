"""Names for people: the line of the program that does something, and what it calls an object that it makes."""

from __future__ import annotations

import linecache
import os
import re
import sys
from types import FrameType

from lab.explored.operation import Place

SKIPPED = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.path.dirname(os.__file__) + os.sep, "<frozen")
_INSTALLED = ("site-packages", "dist-packages")
_ASSIGNED = re.compile(r"\s*(?:self\.)?(\w+(?:\s*,\s*\w+)*)\s*(?::[^=]+)?=(?!=)")


def calling_line() -> Place:
    """The nearest line that is neither the place's nor the standard library's."""
    return own_line(sys._getframe(1))


def own_line(frame: FrameType) -> Place:
    """The same, of another place in the program than the one that calls."""
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(SKIPPED) or any(part in file for part in _INSTALLED):
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def text_of(where: Place) -> str:
    """The text of a line, without its indentation."""
    return linecache.getline(*where).strip()


class Names:
    """Names for the objects of one run, from the variables that they are assigned to."""

    def __init__(self) -> None:
        self._lines: dict[Place, int] = {}
        self._taken: dict[str, int] = {}

    def of(self, kind: str, where: Place) -> str:
        """The name of a new object: ``counter``, ``forks[2]``, or its kind and a number."""
        nth = self._lines[where] = self._lines.get(where, -1) + 1
        line = linecache.getline(*where)
        found = _ASSIGNED.match(line)
        if not found:
            return self._unique(kind)
        variables = [name.strip() for name in found[1].split(",")]
        if " for " in line or "*" in line:
            return f"{variables[0]}[{nth}]"
        return self._unique(variables[nth] if nth < len(variables) else variables[0])

    def _unique(self, name: str) -> str:
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"
