"""How long an embedded fleet takes to start, and what it weighs: ``python -m benchmarks.start [TIMES] [OPTIONS]``.

The options are those of ``python -m worker.fleet``. Time is from the start of its process to the line that says that every
host takes work; weight is the proportional set size of all its processes, in which a page that n of them share counts as
1/n to each (Linux, /proc/PID/smaps_rollup).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [pid, *(each for child in children for each in family(child))]


def weight(pid: int) -> int:
    """Proportional set size in bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def start(options: list[str]) -> tuple[float, int, int]:
    """Start a fleet and end it: seconds, bytes, processes."""
    begun = time.perf_counter()
    command = [sys.executable, "-P", "-m", "worker.fleet", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as fleet:
        assert fleet.stdout
        if not fleet.stdout.readline():
            sys.exit("The fleet did not start.")
        seconds, pids = time.perf_counter() - begun, family(fleet.pid)
        found = seconds, sum(map(weight, pids)), len(pids)
        fleet.communicate()
    return found


def main() -> None:
    """Measure and print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds, weights, counts = zip(*(start(sys.argv[2:]) for _ in range(times)), strict=True)
    print(f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
          f"{statistics.median(weights) / 1e6:.0f} MB in {counts[0]} processes; "
          f"median of {times}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip


if __name__ == "__main__":
    main()
