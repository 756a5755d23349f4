"""What the processes of one program may have of this host: how many run at once, and how much they print (docs/guests.md)."""

from __future__ import annotations

from collections import OrderedDict

from lab.errors import NotEnoughSlots
from lab.settings import Settings

REMEMBERED = 1000
"""Runs that are remembered: what one without a process here has printed counts until so many others came after it."""


class Allowance:
    """What one run may have of this host.

    Args:
        settings: The host's, with its limits.

    Attributes:
        processes: Processes of the run that this host has now.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self.processes = settings, 0
        self._printed, self._told = 0, False

    def enter(self) -> None:
        """Count one more process.

        Raises:
            NotEnoughSlots: The run has as many here as it may.
        """
        most = self._settings.run_processes
        if most and self.processes >= most:
            raise NotEnoughSlots(
                f"{self.processes} processes of this program run here, and CROSSHOST_RUN_PROCESSES={most} was set.",
                "Start fewer at once, or have it raised on that host.",
            )
        self.processes += 1

    def leave(self) -> None:
        """Count one process fewer."""
        self.processes -= 1

    def of(self, size: int) -> int:
        """How many of so many printed bytes are sent on."""
        most = self._settings.run_output
        kept = min(size, max(0, most - self._printed)) if most else size
        self._printed += kept
        return kept

    def last_words(self) -> str:
        """What the program is told when it has printed as much as it may: once, and then nothing."""
        told, self._told = self._told, True
        limit = f"CROSSHOST_RUN_OUTPUT={self._settings.run_output}"
        said = f"crosshost: host {self._settings.host} sends on no more of what this program prints: {limit} was set there.\n"
        return "" if told else said


class Allowances:
    """The allowances of all runs on a host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_run: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, run_id: str) -> Allowance:
        """That of one run."""
        found = self._by_run.setdefault(run_id, Allowance(self._settings))
        self._by_run.move_to_end(run_id)
        if len(self._by_run) > REMEMBERED:
            # Not those that have processes here. Excluded: a program that has its own forgotten by the runs that it begins.
            idle = [known for known, each in self._by_run.items() if not each.processes and each is not found]
            for known in idle[:1]:
                del self._by_run[known]
        return found
