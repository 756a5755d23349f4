"""What a host has done before: ``producer compare --once FILE``, for a container that is started again.

``docker compose up`` starts whatever of its services does not run, a producer that has ended too, however small the change
that was asked for. So the container notes that it has compared, in a file that outlives its end. Another container, as of a
new image or other settings, has another host name, and compares anew.
"""

from __future__ import annotations

import socket
from pathlib import Path

from lab.errors import ExitCode
from producer.runs import Run


def code_of_before(file: str) -> int | None:
    """The exit code of what this host has done before; None if it has not come to its end, or no file says so."""
    try:
        host, _, code = Path(file).read_text(encoding="utf-8").partition(" ")
    except FileNotFoundError:
        return None
    return int(code) if host == socket.gethostname() and code.isdecimal() else None


def note(file: str, runs: list[Run]) -> None:
    """Note that this host has come to its end; not so if a run broke off, for then it shall try again."""
    if not any(run.error for run in runs):
        code = ExitCode.OK if all(run.ok for run in runs) else ExitCode.CHECK_FAILED
        Path(file).write_text(f"{socket.gethostname()} {code.value}", encoding="utf-8")
