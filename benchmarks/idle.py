"""What a process that only waits takes: ``python -m benchmarks.idle [PROCESSES] [SECONDS]`` (Linux).

Processes wait for an event: those of multiprocessing's three start methods, and those of an embedded fleet. Memory is what a
process has for itself (private and written to, ``/proc/PID/smaps_rollup``), the median of all; time is what the program, the
fleet and all their processes had of a core meanwhile (``/proc/PID/task/*/schedstat``). What a main module imports, each
process has too; so this one imports next to nothing before it runs.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import lab


def idle(here: Any, over: Any) -> None:
    """Say that this process is here, by its id on this machine, and wait."""
    here.put(os.getpid())
    over.wait()


def private(pid: int) -> int:
    """Bytes that a process has for itself, as it has written to them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_Dirty:"))


def ran(pids: list[int]) -> float:
    """Seconds of a core that processes had until now."""
    paths = (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in paths) / 1e9


def measure(ctx: Any, processes: int, seconds: float) -> tuple[float, float]:
    """Bytes of a process, and the share of a core that all together had."""
    from statistics import median

    from benchmarks.start import family

    here, over = ctx.SimpleQueue(), ctx.Event()
    waiting = [ctx.Process(target=idle, args=(here, over)) for _ in range(processes)]
    for process in waiting:
        process.start()
    pids = [here.get() for _ in waiting]
    time.sleep(1)  # what starts have begun is over
    everybody, begun = family(os.getpid()), time.perf_counter()
    before = ran(everybody)
    time.sleep(seconds)
    share = (ran(everybody) - before) / (time.perf_counter() - begun)
    memory = median(map(private, pids))
    over.set()
    for process in waiting:
        process.join()
    return memory, share


def main() -> None:
    """Measure and print."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    print(f"{processes} processes that wait, {seconds:g} s each, "
          f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    for name in ("fork", "forkserver", "spawn", "cluster"):
        ctx: Any = lab.get_context(name) if name in lab.PLACES else multiprocessing.get_context(name)
        memory, share = measure(ctx, processes, seconds)
        print(f"{name:12}{memory / 1e6:5.1f} MB a process, {share:6.2%} of a core for all")
        if name in lab.PLACES:
            ctx.close()


if __name__ == "__main__":
    main()
