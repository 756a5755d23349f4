"""A fleet in the terminal, once or as it goes on."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from lab.watching.circles import Circle, lasting
from lab.watching.state import Fleet, Process, Run
from producer import output
from producer.watching.fleet import ago, printable, spoken, watched
from producer.watching.fleet import lasting as spoken_time
from producer.watching.locks import MARKS

ROWS = 40
"""Processes that are listed of one run, those that wait and those that are silent first."""


def watch(once: bool, as_json: bool, every: float) -> None:
    """Write what there is, again and again; once if that is asked for, or nobody could see it change.

    Raises:
        LabError: The fleet cannot be reached.
    """
    look = watched().watcher.look
    before = look()
    if once or not (as_json or sys.stdout.isatty()):
        fleet = look()  # two looks tell what lasts
        circles = lasting(before, fleet)
        output.write_json(document(fleet, circles)) if as_json else output.write_rich(tables(fleet, circles))
        return
    if as_json:
        while True:
            time.sleep(every)
            fleet = look()
            output.write(json.dumps(output.plain(document(fleet, lasting(before, fleet)))) + "\n")
            before = fleet
    _live(look, before, every)


def _live(look: Any, before: Fleet, every: float) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            fleet = look()
            live.update(Group(*tables(fleet, lasting(before, fleet)), "", "Ctrl-C ends this."), refresh=True)
            before = fleet
            time.sleep(every)


def document(fleet: Fleet, circles: list[Circle]) -> dict[str, Any]:
    """All that there is, for programs."""
    return {**asdict(fleet), "deadlocks": [asdict(circle) for circle in circles]}


def tables(fleet: Fleet, circles: list[Circle]) -> list[Any]:
    """The same for people."""
    parts: list[Any] = [_summary(fleet), "", _hosts(fleet)]
    for run in fleet.runs:
        parts += ["", f"run {run.id}", _processes(fleet, run)]
        parts += [line for line in _shared(fleet, run) if line]
        for circle in circles:
            if circle.run == run.id:
                names = [spoken(fleet.process(run.id, link.process), link.process) for link in circle.links]
                parts.append(f"◆ wait in a circle: {' -> '.join([*names, names[0]])} (see: producer locks)")
    if not fleet.runs:
        parts += ["", "No program has processes on this fleet."]
    return [printable(part) if isinstance(part, str) else part for part in parts]


def _summary(fleet: Fleet) -> str:
    slots = sum(host.slots for host in fleet.hosts)
    busy = sum(host.busy for host in fleet.hosts)
    words = [f"{len(fleet.hosts)} hosts", f"{busy} processes on {slots} slots", f"{fleet.starting} wait for a host"]
    if fleet.dead_letters:
        words.append(f"{fleet.dead_letters} dead letters")
    if fleet.jobs:
        words.append(f"{fleet.jobs} jobs, {sum(fleet.job_queues.values())} chunks wait")
    if fleet.memory:
        of = f" of {_size(fleet.memory.ceiling)}" if fleet.memory.ceiling else ""
        words.append(f"Redis {_size(fleet.memory.used)}{of}")
    return ", ".join(words)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _hosts(fleet: Fleet) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("HOST", "SLOTS", "", "BUSY", "UP", "LACKS", style="bold")
    for host in fleet.hosts:
        taken = min(host.busy, host.slots)
        over = f"+{host.busy - host.slots}" if host.busy > host.slots else ""
        bar = "■" * min(taken, 40) + "□" * min(host.slots - taken, 40) + over
        table.add_row(host.name, str(host.slots), bar, str(host.busy), spoken_time(host.age), host.lacks)
    return table


def _processes(fleet: Fleet, run: Run) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("PROCESS", "NAME", "WHERE", "DOES", "FOR", "LEASE", style="bold")
    chosen = run.processes
    if len(chosen) > ROWS:
        chosen = sorted(chosen, key=lambda each: (not each.silent, not each.doing.startswith("waits")))[:ROWS]
    for each in chosen:
        where = f"{each.host}/{each.pid}" if each.host else ""
        lasts = ago(fleet, each.doing_since, exact=not each.on)
        row = (each.id, each.name, where, does(each), lasts, _lease(each))
        table.add_row(*map(printable, row))
    if len(run.processes) > ROWS:
        table.add_row("", f"{len(run.processes) - ROWS} more")
    return table


def does(process: Process) -> str:
    """What a process does, in a few words."""
    if process.call is not None:
        return f"in call {process.call} {process.function}".rstrip() + f" of {process.on}"
    return f"{process.doing} {process.on}".rstrip()


def _lease(process: Process) -> str:
    if process.silent:
        return f"! silent for {spoken_time(process.silent)}, {spoken_time(max(0.0, process.lease))} left"
    return f"{process.lease:.0f} s"


def _shared(fleet: Fleet, run: Run) -> list[str]:
    """Pools, queues and locks, each kind in a line or a few."""
    lines = []
    for pool in run.pools:
        rate = "" if pool.rate is None else f", {pool.rate:.0f} calls/s"
        taken = sum(pool.taken.values())
        lines.append(f"{pool.name}: {pool.waiting} calls wait, {taken} taken, {pool.handed_out} handed out{rate}")
    for queue in run.queues:
        if queue.length:
            lines.append(f"{queue.name}: {queue.length} messages{_for(fleet, queue.since, ', the first')}")
    for lock in run.locks:
        if lock.state != "free":
            holder = spoken(fleet.process(run.id, lock.holder), lock.holder)
            words = f"held by {holder}{_for(fleet, lock.since)}" if lock.holder else lock.kind
            waiting = f", {len(lock.waiters)} wait" if lock.waiters else ""
            lines.append(f"{MARKS[lock.state].split()[0]} {lock.name}: {words}{waiting}")
    return lines


def _for(fleet: Fleet, since: int | None, who: str = "") -> str:
    lasts = ago(fleet, since)
    return f"{who} for {lasts}" if lasts else ""
