"""``producer doctor``: everything is looked at side by side, each room within a bound, and told in one order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import BadSettings, ExitCode
from lab.settings import Settings
from producer import output
from producer.doctor import broker, engine, fleet, keys, machine
from producer.doctor.finding import FINE, LEVELS, NOTE, WRONG, Finding, all_of, note
from producer.names import BadName

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

WITHIN = 30.0
"""Seconds after which what has not come to its end is told as that."""

INDENT = 8
MARKS = {FINE: "   fine", NOTE: "   note", WRONG: "  WRONG"}
STYLES = {FINE: "green", NOTE: "yellow", WRONG: "bold red"}


class Room:
    """What is looked at in a thread of its own, so that one thing that hangs hides nothing else.

    Args:
        name: As it is told.
        look: Finds.
    """

    def __init__(self, name: str, look: Callable[[], Iterator[Finding]]) -> None:
        self.name, self._look = name, look
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, daemon=True)  # one that hangs holds nobody up at the end
        self._thread.start()

    def _run(self) -> None:
        for finding in all_of([lambda _: self._look()], None):
            self._found.append(finding)

    def findings(self, within: float) -> list[Finding]:
        """What was found, after so many seconds at the most."""
        self._thread.join(max(0.0, within))
        found = list(self._found)
        if self._thread.is_alive():
            found.append(note(f"Something here does not come to its end within {WITHIN:g} s.",
                              "What follows in this part was not looked at.",
                              "If it is the fleet: does its name resolve? getent hosts NAME"))  # fmt: skip
        return found


def examine(script: str, as_json: bool, quiet: bool) -> int:
    """Look at everything, and tell it.

    Args:
        script: A program whose imports are compared with what the hosts have; empty for none.
        as_json: Whether as JSON.
        quiet: Whether what is fine is left out.

    Returns:
        The exit code: 1 if something is wrong.

    Raises:
        BadName: There is no such script.
    """
    if script and not os.path.isfile(script):
        raise BadName(f"Cannot read {script!r}.", "Name a Python file, or none:\n  producer doctor")
    # one bound for all, as they are looked at side by side
    deadline = time.monotonic() + WITHIN
    found = {room.name: room.findings(deadline - time.monotonic()) for room in rooms(script)}
    counts = {level: sum(finding.level == level for many in found.values() for finding in many) for level in LEVELS}
    if as_json:
        flat = [{"part": name, **asdict(finding)} for name, many in found.items() for finding in many]
        output.write_json({"counts": counts, "findings": flat})
    else:
        output.write_rich(list(_told(found, counts, quiet)))
    return ExitCode.CHECK_FAILED if counts[WRONG] else ExitCode.OK


def _told(found: dict[str, list[Finding]], counts: dict[str, int], quiet: bool) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    for name, many in found.items():
        shown = [finding for finding in many if not (quiet and finding.level == FINE)]
        if shown:
            yield Text(name, style="bold")
        for finding in shown:
            mark = Text(MARKS[finding.level], style=STYLES[finding.level])
            yield _beside(mark, Text(finding.what))
            if finding.why:
                yield Padding(Text(finding.why, style="dim"), (0, 0, 0, INDENT))
            for line in finding.do.splitlines():
                yield Text(" " * (INDENT + 2) + line, style="cyan", no_wrap=True)  # to be copied
    yield Text(f"{counts[WRONG]} wrong, {counts[NOTE]} worth knowing, {counts[FINE]} fine")


def _beside(mark: Text, what: Text) -> RenderableType:
    from rich.table import Table

    line = Table.grid(padding=0)
    line.add_column(width=INDENT)
    line.add_column()
    line.add_row(mark, what)
    return line


def rooms(script: str) -> list[Room]:
    """Everything that there is to look at, being looked at."""
    environ = dict(os.environ)
    own = Room("settings", lambda: all_of(keys.CHECKS, environ))
    own.findings(WITHIN)  # first, as to read the settings tells of files that others can read, which this has told then
    try:
        settings = Settings.from_env(environ)
    except BadSettings:
        settings = None
    here = machine.Machine(embedded=not environ.get("CROSSHOST_BROKER_URL"), script=script)
    found = [
        Room("this machine", lambda: all_of(machine.CHECKS, here)),
        own,
        Room("Docker", lambda: all_of(engine.CHECKS, Path.cwd())),
    ]
    if settings is not None and settings.broker_url:
        fleets = settings
        found += [Room("Redis", lambda: broker.look(fleets)), Room("hosts", lambda: fleet.look(fleets, script))]
    return found
