"""The records of all processes of a run become one trace: one clock, one order, and what only the whole can tell."""

from __future__ import annotations

import marshal
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lab.trace import clock
from lab.trace.events import Event, Trace

Chunk = tuple[dict[str, Any], list[tuple[Any, ...]]]
"""Who hands it in, and events as they were noted."""


def loaded(data: Any) -> Chunk:
    """A chunk from its bytes, which are this host's own or have been verified."""
    head, events = marshal.loads(data)  # noqa: S302 - as above
    return head, events


def from_folder(folder: str) -> Iterator[Chunk]:
    """The chunks that the processes of this host have left in a folder; what a death cut off is left out."""
    for path in sorted(path for path in Path(folder).iterdir() if path.is_file()):
        data = memoryview(path.read_bytes())
        while len(data) >= 8:
            size = int.from_bytes(data[:8], "big")
            if len(data) < 8 + size:
                break
            yield loaded(data[8 : 8 + size])
            data = data[8 + size :]


def merged(chunks: Iterable[Chunk], run: dict[str, Any]) -> Trace:
    """The trace of one run.

    Args:
        chunks: In any order, some of them perhaps twice.
        run: What was run; completed by the error of the clocks.
    """
    once = {(head["token"], head["chunk"]): (head, events) for head, events in chunks}
    ordered = [once[key] for key in sorted(once)]
    offsets, error = clock.together((head["kernel"], head["clock"]) for head, _ in ordered)
    names: dict[str, str] = {}
    events = [
        _event(head, noted, offsets[head["kernel"]], names) for head, several in ordered for noted in several
    ]  # fmt: skip
    events.sort(key=lambda event: event.t)  # stable: what one thread did at the same time stays in its order
    closed = {f"{head['host']}/{head['pid']}" for head, _ in ordered if head["closed"]}
    events = _told(_with_deaths(events, closed))
    base = events[0].t if events else 0
    for event in events:
        event.t -= base
    return Trace([run | {"clock error": error, "kernels": len(offsets)}], events)


def _event(head: dict[str, Any], noted: tuple[Any, ...], offset: int, names: dict[str, str]) -> Event:
    t, word, thread, on, file, line, took, more = noted
    more = dict(more or {})
    if isinstance(number := more.get("item"), int):
        more["item"] = _numbered(number)
    if isinstance(numbers := more.get("items"), list):
        more["items"] = [_numbered(number) for number in numbers]
    at = f"{_short(file, names)}:{line}" if file else ""
    return Event(t + offset, f"{head['host']}/{head['pid']}/{thread}", word, on, at, took, 0, more)


def _numbered(number: int) -> str:
    return f"{number >> 32:x}-{number & 0xFFFFFFFF}"


def _short(file: str, names: dict[str, str]) -> str:
    if file not in names:
        names[file] = os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file
    return names[file]


def _with_deaths(events: list[Event], closed: set[str]) -> list[Event]:
    """Who has begun and not ended, in a process that never handed in its last, has died: when it was last heard of."""
    codes = {event.item: event.more for event in events if event.event == "joined" and event.item}
    last: dict[str, Event] = {}
    ended, started = set[str](), dict[str, Event]()
    for event in events:
        last[event.who] = event
        if event.event == "ended":
            ended.add(event.who)
        elif event.event == "started":
            started[event.who] = event
            ended.discard(event.who)
    found = []
    for who, begun in started.items():
        if who in ended or begun.process in closed:
            continue
        end = last[who].t + last[who].took
        joined = codes.get(begun.item, {})
        if joined.get("lost"):
            found.append(Event(end, who, "lapsed"))
        found.append(Event(end, who, "died", more={"code": joined.get("code")}))
    return sorted(events + found, key=lambda event: event.t) if found else events


def _told(events: list[Event]) -> list[Event]:
    """Add who had what somebody wanted, who woke whom, and which calls began twice."""
    holders: dict[str, str] = {}
    free: dict[str, int] = {}
    last_release: dict[str, str] = {}
    wanted: dict[tuple[str, str], int] = {}
    turns: dict[str, int] = defaultdict(int)
    wakers: dict[str, str] = {}
    begun: dict[str, str] = {}
    done: dict[str, tuple[int, str]] = {}
    told = []
    for at, event in enumerate(events):
        word, on, who = event.event, event.on, event.who
        if word == "made":
            free[on] = int(event.more.get("value", 1))
        elif word == "wanted":
            if (holder := holders.get(on)) and holder != who and free.get(on, 1) <= 0:
                event.more["of"] = holder
            wanted[on, who] = -1 if "of" in event.more else turns[on]
        elif word == "got":
            # it had to be waited for if somebody had it when it was wanted, or got it since
            waited = wanted.pop((on, who), turns[on]) != turns[on]
            if waited and (giver := last_release.get(on)):
                event.more["of"] = giver
            turns[on] += 1
            holders[on] = who
            free[on] = max(0, free.get(on, 1) - 1)  # of a holder that died nobody says that it has it no more
        elif word == "released":
            holders.pop(on, None)
            free[on] = free.get(on, 1) + 1
            last_release[on] = who
        elif word in ("set", "notified"):
            wakers[on] = who
        elif word == "waits":
            if event.on.startswith("Barrier"):
                wakers[on] = who
        elif word == "woken":
            ended = max((done[item] for item in event.more.get("items", ()) if item in done), default=None)
            if (waker := ended[1] if ended else wakers.get(on)) and waker != who:
                event.more["of"] = waker
        elif word == "done":
            done[event.item] = at, who
        elif word == "begun":
            if (first := begun.get(event.item)) and first != who:
                told.append(Event(event.t, who, "redelivered", on, event.at, more={"item": event.item, "of": first}))
            begun[event.item] = who
        told.append(event)
    return told
