"""The reading part of a diagnosis: everything that the source of a script tells of its confusions."""

from __future__ import annotations

from producer.diagnose import locks, pools, queues, sharing, starts
from producer.diagnose.finding import Finding
from producer.diagnose.things import Script
from producer.diagnose.walk import Program

KINDS = (starts, sharing, locks, queues, pools)


def read(source: bytes | str, name: str = "SCRIPT.py") -> list[Finding]:
    """The confusions of a script that can be read off it, by line; one of a kind for each line.

    Raises:
        SyntaxError, ValueError: It is not Python.
    """
    program = Program(Script(source, name))
    by_line = {(each.confusion, each.line): each for kind in KINDS for each in kind.look(program)}
    return sorted(by_line.values(), key=lambda each: (each.line, each.confusion))
