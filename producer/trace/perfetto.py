"""A trace as trace-event JSON, for Perfetto's viewer and whatever else reads that format.

Slices of one track must nest there, so what a thread does is a track of slices one after the other, waits are asynchronous
slices, and what went from one lane to another is a flow between two slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.trace.events import Trace
from producer.trace.lanes import Arrow, Lane, Picture, picture

NAMES = {"run": "runs", "hold": "has", "crowded": "has, others wait", "op": "operation", "idle": "idle"}
WAITS = {"wants": "wants", "waits": "waits for"}


def exported(trace: Trace) -> dict[str, Any]:
    """The trace in that format: an object with ``traceEvents``; times in microseconds."""
    events: list[dict[str, Any]] = []
    numbers = _Numbers()
    for number, run in enumerate(trace.runs):
        drawn = picture(trace.of(number))
        name = f"{run.get('concept', '?')} on {run.get('place', '?')}"
        events += _run(drawn, name, numbers)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": trace.about}


class _Numbers:
    """Numbers for processes, threads and pairs, which no two runs share."""

    def __init__(self) -> None:
        self.processes: dict[tuple[str, str], int] = {}
        self._pairs = 0

    def process(self, run: str, who: str) -> int:
        return self.processes.setdefault((run, who), len(self.processes) + 1)

    def pair(self) -> int:
        self._pairs += 1
        return self._pairs


def _run(drawn: Picture, run: str, numbers: _Numbers) -> Iterator[dict[str, Any]]:
    tracks: dict[str, tuple[int, int]] = {}
    for lane in drawn.lanes:
        process, _, thread = lane.who.rpartition("/")
        fresh = (run, process) not in numbers.processes
        pid = numbers.process(run, process)
        tracks[lane.who] = pid, int(thread)
        if fresh:
            yield _meta("process_name", pid, 0, f"{run}: {process}")
        yield _meta("thread_name", *tracks[lane.who], lane.name or thread)
        yield from _lane(lane, tracks[lane.who], numbers)
    locks = numbers.process(run, "locks")
    yield _meta("process_name", locks, 0, f"{run}: locks")
    for tid, (on, holds) in enumerate(drawn.holds.items(), 1):
        yield _meta("thread_name", locks, tid, on)
        for hold in holds:
            number = numbers.pair()
            yield _begin("b", hold.start, hold.who, "lock", (locks, tid), id=number, args={"at": hold.at})
            yield _begin("e", hold.end, hold.who, "lock", (locks, tid), id=number)
    for arrow in drawn.arrows:
        if arrow.source in tracks and arrow.target in tracks:
            yield from _flow(arrow, tracks, numbers.pair())


def _lane(lane: Lane, track: tuple[int, int], numbers: _Numbers) -> Iterator[dict[str, Any]]:
    for piece in lane.slices:
        args = {name: value for name in ("at", "of") if (value := getattr(piece, name))}
        if piece.state in WAITS:
            number = numbers.pair()
            name = f"{WAITS[piece.state]} {piece.on}"
            yield _begin("b", piece.start, name, "wait", track, id=number, args=args)
            yield _begin("e", piece.end, name, "wait", track, id=number)
        else:
            name = " ".join(filter(None, (NAMES[piece.state], piece.on)))
            yield _begin("X", piece.start, name, piece.state, track, dur=(piece.end - piece.start) / 1e3, args=args)
    for mark in lane.marks:
        yield _begin("i", mark.t, mark.told, "mark", track, s="t", args={"on": mark.on, "at": mark.at})


def _flow(arrow: Arrow, tracks: dict[str, tuple[int, int]], number: int) -> Iterator[dict[str, Any]]:
    name = f"{arrow.kind} {arrow.on}".strip()
    yield _begin("s", arrow.start, name, "flow", tracks[arrow.source], id=number)
    yield _begin("f", max(arrow.end, arrow.start), name, "flow", tracks[arrow.target], id=number, bp="e")


def _begin(kind: str, t: int, name: str, category: str, track: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {"ph": kind, "ts": t / 1e3, "name": name, "cat": category, "pid": track[0], "tid": track[1], **more}


def _meta(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}
