"""Predictions and what came of them, kept on disk: one line of JSON each, only ever added to."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer import output
from producer.classroom import enrolled


def folder() -> Path:
    """Where they are kept: in the folder of a course, else ``XDG_STATE_HOME`` or ``~/.local/state``, for each user."""
    if (found := enrolled.find()) is not None:
        return found.kept
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "crosshost" / "learn"


class Kept:
    """What is kept of one lesson.

    Args:
        lesson: Its name.
    """

    def __init__(self, lesson: str) -> None:
        self.path = folder() / f"{lesson}.jsonl"

    def add(self, step: str, **entry: Any) -> None:
        """Add a line, and return when it is on the disk.

        Raises:
            OutputFailed: It cannot be written.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, **entry}
        with output.written(str(self.path)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(output.plain(line)) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def done(self) -> set[str]:
        """The steps that came to their end, ever."""
        return {entry["step"] for entry in self._entries() if "measured" in entry}

    def steps(self) -> set[str]:
        """The steps that there is a line of."""
        return {entry["step"] for entry in self._entries()}

    def _entries(self) -> list[dict[str, Any]]:
        try:
            lines = self.path.read_text().splitlines()
        except OSError:
            return []
        return [entry for entry in map(_entry, lines) if entry]


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}  # a line that was broken off with the machine
    return entry if isinstance(entry, dict) and "step" in entry else {}
