"""Faults that whoever watches may cause, to see what follows: only with ``producer page --faults``."""

from __future__ import annotations

import signal

from lab.watching.stack import tell
from producer.watching.fleet import Watched

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
"""What can be done to a process. One that is frozen keeps its locks until its lease lapses."""


def cause(watched: Watched, what: str, run: str, process: str) -> str:
    """Cause one; what was done, in words.

    Args:
        watched: The fleet.
        what: One of ``SIGNALS``, for a process; or "cut", all connections to Redis at once.
        run: The run of the process.
        process: Its id.

    Raises:
        LabError: It could not be.
        KeyError: There is no such fault.
    """
    if what == "cut":
        count = watched.store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return f"{count} connections to Redis were cut."
    tell(watched.settings, watched.store, run, process, str(int(SIGNALS[what])))
    return f"{process} was sent {SIGNALS[what].name}."
