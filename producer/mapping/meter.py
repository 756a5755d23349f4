"""How far a map has got: a bar on a terminal, and a summary in the end."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from producer.mapping.flow import Flow
from producer.mapping.sink import Sink

if TYPE_CHECKING:
    from rich.progress import Progress

FRAME = 0.2
ALIVE = 3.0
"""Seconds for which a worker's host is counted as busy after its last answer."""


class Meter:
    """Counts, and shows.

    Args:
        sink: Has the counts.
        size: Bytes of the input, None where it is not known.
        shown: Whether to draw a bar; only on a terminal.
    """

    def __init__(self, sink: Sink, size: int | None, shown: bool) -> None:
        self._sink, self._size = sink, size
        self._begun = self._drawn = time.perf_counter()
        self._before = sink.done + sink.failed
        self._heard: dict[str, tuple[int, float]] = {}
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _bar()
            self._task = self._bar.add_task("", total=size, text="starting")
            self._bar.start()

    def look(self, flow: Flow) -> None:
        """Draw, five times a second at most; in the caller's thread, so that no other one competes with the workers."""
        now = time.perf_counter()
        if self._bar is None or now - self._drawn < FRAME:
            return
        self._drawn = now
        done = self._sink.done + self._sink.failed - self._before
        text = f"{self._sink.done:,} done, {rate(done / (now - self._begun))}, {self._sink.failed:,} failed, "
        text += f"{counted(flow.busy, 'worker')} busy on {counted(self._busy_hosts(flow, now), 'host')}"
        total = None if self._size is None else self._size - self._sink.ledger.replayed
        self._bar.update(self._task, total=total, completed=flow.bytes, text=text)
        self._bar.refresh()

    def _busy_hosts(self, flow: Flow, now: float) -> int:
        for host, items in _hosts(flow).items():
            if self._heard.get(host, (0, 0.0))[0] != items:
                self._heard[host] = items, now
        return sum(now - at < ALIVE for _, at in self._heard.values())

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def summary(self, flow: Flow) -> dict[str, Any]:
        """What was done, as JSON types: counts of items over all runs of the map, time and workers of this one."""
        seconds = time.perf_counter() - self._begun
        items = self._sink.done + self._sink.failed - self._before
        return {
            "items": self._sink.done + self._sink.failed,
            "done": self._sink.done,
            "failed": self._sink.failed,
            "resumed": self._before,
            "seconds": round(seconds, 3),
            "rate": round(items / seconds, 1),
            "workers": [
                {"host": who.host, "pid": who.pid, "thread": who.thread, "items": items}
                for who, items in sorted(flow.team.items())
            ],
        }


def told(summary: dict[str, Any]) -> str:
    """The summary in words."""
    workers = summary["workers"]
    hosts: Counter[str] = Counter()
    for each in workers:
        hosts[each["host"]] += each["items"]
    processes = len({(each["host"], each["pid"]) for each in workers})
    text = f"{summary['items']:,} items: {summary['done']:,} done, {summary['failed']:,} failed"
    if summary["resumed"]:
        text += f" ({summary['resumed']:,} of them by an earlier run)"
    text += f"; {summary['seconds']:.2f} s, {rate(summary['rate'])}"
    if workers:
        team = f"{counted(len(workers), 'worker')} in {counted(processes, 'process')} on {counted(len(hosts), 'host')}"
        text += f"\nby {team}: "
        text += ", ".join(f"{host} {items:,}" for host, items in sorted(hosts.items()))
    return text


def rate(per_second: float) -> str:
    """Items a second, or a minute where they are few."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"


def counted(n: int, noun: str) -> str:
    """``1 host``, ``3 hosts``, ``2 processes``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}{'es' if noun.endswith('s') else 's'}"


def _hosts(flow: Flow) -> Counter[str]:
    hosts: Counter[str] = Counter()
    for who, items in flow.team.items():
        hosts[who.host] += items
    return hosts


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto")
    columns = (BarColumn(20), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn(compact=True),
               TextColumn("{task.fields[text]}"))  # fmt: skip
    return Progress(*columns, console=console, auto_refresh=False, transient=True)
