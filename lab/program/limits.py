"""The limits of one process on a host, and what an exception that they caused says of them.

What a process asks for beyond them its kernel refuses, and Python raises what it raises on a machine without memory:
``MemoryError``, or ``OSError`` with ``EMFILE``. The note says whose doing it is.
"""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable
from typing import Any

from lab.settings import Settings
from lab.store import run as runs


def impose(settings: Settings) -> None:
    """Limit this process, and those that it forks, for good.

    Memory is limited on Linux alone, where ``RLIMIT_DATA`` counts the private pages that a process may write to: what it
    allocates, and not what it maps to read.
    """
    if settings.process_memory and sys.platform == "linux":
        _lower(resource.RLIMIT_DATA, settings.process_memory)
    if settings.process_files:
        _lower(resource.RLIMIT_NOFILE, settings.process_files)


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def mark(exc: BaseException) -> None:
    """Have an exception say which setting of this host caused it, if one did."""
    run = runs.current()
    if run is None or run.me == runs.ROOT:
        return
    settings = run.settings
    limit = ""
    if settings.process_memory and isinstance(exc, MemoryError):
        limit = f"CROSSHOST_PROCESS_MEMORY={settings.process_memory}"
    elif settings.process_files and isinstance(exc, OSError) and exc.errno == errno.EMFILE:
        limit = f"CROSSHOST_PROCESS_FILES={settings.process_files}"
    if limit:
        exc.add_note(f"On host {settings.host or 'unknown'} a process may have no more: {limit} was set there.")


def marking(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, with what it raises marked."""

    def run() -> Any:
        try:
            return function()
        except Exception as exc:
            mark(exc)
            raise

    return run
