"""The fleet that the commands of this room look at, and its processes by what people call them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lab.errors import ExitCode, LabError, NoWorkers
from lab.settings import Settings
from lab.store.run import ROOT
from lab.store.store import Store
from lab.watching.reader import Reader
from lab.watching.state import Fleet, Process, Run
from lab.watching.watcher import Watcher

AT_LEAST = 0.2
"""Seconds of watching that say less of how long something has lasted than nothing."""


class NoSuchProcess(LabError, LookupError):
    """What was typed names no process, or more than one."""

    exit_code = ExitCode.USAGE


@dataclass
class Watched:
    """A fleet, and how to look at it."""

    settings: Settings
    watcher: Watcher

    @cached_property
    def store(self) -> Store:
        """Redis, to ask somebody with."""
        return Store(self.settings.broker_url)


def watched() -> Watched:
    """The fleet that the environment points at.

    Raises:
        NoWorkers: It points at none.
    """
    settings = Settings.from_env()
    if not settings.broker_url:
        raise NoWorkers(
            "No fleet is running that this terminal knows of: CROSSHOST_BROKER_URL is empty.",
            "Start one in another terminal, and run there and here the export lines that it prints:\n"
            "  producer fleet --hosts 3 --slots 4\n"
            "(A fleet that a command starts for itself is that command's alone.)",
        )
    return Watched(settings, Watcher(Reader(settings.broker_url), settings))


def find(fleet: Fleet, typed: str) -> tuple[Run, Process]:
    """The one process that is meant.

    Args:
        fleet: Where it is.
        typed: Its id or the beginning of it, its name, or HOST/PID.

    Raises:
        NoSuchProcess: There is none, or there are several.
    """
    found = [(run, process) for run in fleet.runs for process in run.processes if _is_meant(process, typed)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoSuchProcess(f"There is no process {typed!r} on this fleet.", "To see all: producer top --once")
    ids = ", ".join(f"{process.id} ({spoken(process)}, run {run.id})" for run, process in found[:10])
    raise NoSuchProcess(f"{typed!r} may be any of {len(found)} processes: {ids}.", "Name one by its id.")


def _is_meant(process: Process, typed: str) -> bool:
    if process.id == ROOT:
        return typed in (ROOT, process.name)
    return typed in (process.name, f"{process.host}/{process.pid}") or (bool(typed) and process.id.startswith(typed))


def spoken(process: Process | None, unknown: str = "") -> str:
    """What people call a process: name, host and process id there, as far as they are known."""
    if process is None:
        return unknown
    if process.id == ROOT:
        return "root"
    return f"{process.name or process.id} on {process.host}/{process.pid}"


def ago(fleet: Fleet, since: int | None, exact: bool = False) -> str:
    """For how long something has lasted: ``12 s``, ``3 min``; ``> 12 s`` if it was there before anybody looked."""
    if since is None:
        return ""
    seconds = max(0, fleet.at - since) / 1000
    if exact or since > fleet.watched_from:
        return lasting(seconds)
    return f"> {lasting(seconds)}" if seconds >= AT_LEAST else ""


def lasting(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def printable(text: str) -> str:
    """Text that others wrote, which must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
