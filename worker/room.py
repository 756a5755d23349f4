"""How many more processes this host can take: as many as it has memory for, and process ids, and was told to.

A slot is a place to compute, not a limit: a host takes more processes than it has slots when all slots of the fleet are
taken, as a kernel takes more than it has cores. What ends that is memory. The limits of a container are its control group's
(``memory.max``, ``pids.max``); those of a machine the kernel's. Where neither can be read (macOS), only the setting counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUP = Path("/sys/fs/cgroup")

MEMORY = 128 << 20
"""Bytes that stay free: room for what the processes that are here already may still ask for."""

THREADS = 32
"""Process ids, which threads count as, that stay free, likewise."""


def lacking(processes: int, most: int) -> str:
    """What is lacking for one more process; empty if nothing is.

    Args:
        processes: How many run on this host.
        most: How many may; 0 for as many as there is memory for.
    """
    if most and processes >= most:
        return f"CROSSHOST_MOST_PROCESSES={most}"
    if any(free < MEMORY for free in _free_memory()):
        return "memory"
    if any(free < THREADS for free in _free(GROUP / "pids.max", GROUP / "pids.current")):
        return "process ids"
    return ""


def whole_memory() -> int:
    """Bytes of memory that this machine, or its container, has; 0 if that is not known."""
    whole = []
    with suppress(OSError, ValueError):
        whole.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        whole.append(int((GROUP / "memory.max").read_text()))
    return min(whole, default=0)


def _free_memory() -> Iterator[int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    # What the group keeps of files it gives up before anybody is killed for memory.
    kept = _kept_of_files()
    yield from (free + kept for free in _free(GROUP / "memory.max", GROUP / "memory.current"))


def _kept_of_files() -> int:
    try:
        lines = (GROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _free(limit: Path, used: Path) -> Iterator[int]:
    try:
        most = limit.read_text().strip()
        if most != "max":
            yield int(most) - int(used.read_text())
    except (OSError, ValueError):
        return
