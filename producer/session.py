"""A program in a session of its own, of which nothing is left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

TIDY = 2.0
"""Seconds that the trackers of semaphores have to remove those of who was killed."""

MOST = 4_000_000
"""Bytes of an output that are kept, the last ones."""

_TRACKER = b"multiprocessing.resource_tracker"


class Session:
    """Starts a program without standard input. What is left of it is ended when the ``with`` block is.

    Its output goes to files and not to pipes: a process that hangs would hold a pipe open, and its reader up.

    Args:
        command: The program.
        env: Its environment; None for this one's.
        folder: Its working directory; None for this one's.

    Attributes:
        pid: Id of the program, and of its session.
        out, err: What it and its children had printed when it ended, or was ended; the last ``MOST`` bytes of it.
        code: Its exit code; None if it had to be ended.
    """

    def __init__(self, command: list[str], env: dict[str, str] | None = None, folder: Path | None = None) -> None:
        self.out = self.err = ""
        self.code: int | None = None
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        out, err = self._files
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=folder, start_new_session=True
        )
        self.pid = self._process.pid

    def wait(self, limit: float) -> int | None:
        """Its exit code, if it ends within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.code = self._process.wait(limit)
        return self.code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Before it is ended: trackers tell of what they clear away.
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        if hasattr(os, "killpg"):
            _end(self.pid)
        else:
            self._process.kill()
        self._process.wait()
        # Afterwards: a program that still writes has the position of the file in common with who reads it.
        self.out, self.err = map(_read, self._files, sizes)


def _end(session: int) -> None:
    """Kill the processes of a session, and last those that clear away named semaphores of the others (Linux)."""
    deadline = time.monotonic() + TIDY
    while (left := list(_of(session))) and time.monotonic() < deadline:
        for pid, is_tracker in left:
            if not is_tracker:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # somebody else's children, for whose end there is no event
    with suppress(ProcessLookupError):  # nothing is left, the usual case
        os.killpg(session, signal.SIGKILL)


def _of(session: int) -> Iterator[tuple[int, bool]]:
    """The processes of a session that live, and whether each is a tracker."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                yield int(stat.parent.name), _TRACKER in (stat.parent / "cmdline").read_bytes()


def _read(file: Any, size: int) -> str:
    """The end of what a file had in so many bytes."""
    with file:
        begin = max(0, size - MOST)
        file.seek(begin)
        text: str = file.read(size - begin).decode(errors="replace")
    return text
