"""Whether a trace can be true: what contradicts itself is named, the first one in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from lab.trace.events import WORDS, Event, Trace
from producer.output import duration
from producer.trace.lanes import LOCK_ENDS, calls, picture
from producer.trace.spent import of_lane

SHARE = 0.01
"""By which the parts of a thread's time may miss the whole."""


def violations(trace: Trace) -> Iterator[str]:
    """What cannot be so, in plain words; nothing if the trace is sound. A deadlock that it ends in is told as well."""
    several = len(trace.runs) > 1
    for number, run in enumerate(trace.runs or [{}]):
        events = trace.of(number)
        error = int(run.get("clock error", 0))
        name = f"{run.get('concept', '?')} on {run.get('place', '?')}: " if several else ""
        for rule in RULES:
            yield from (name + text for text in rule(events, error))


def _when(event: Event) -> str:
    at = f" ({event.at})" if event.at else ""
    return f"at {duration(event.t / 1e9)} {event.who}{at}"


def _words(events: list[Event], _error: int) -> Iterator[str]:
    yield from (f"{_when(event)}: there is no event {event.event!r}" for event in events if event.event not in WORDS)


def _times_rise(events: list[Event], _error: int) -> Iterator[str]:
    last: dict[str, Event] = {}
    for event in events:
        before = last.get(event.who)
        if before is not None and event.t < before.t:
            yield f"{_when(event)}: {event.event} comes after {before.event}, which is later, at {duration(before.t / 1e9)}"
        if event.event != "cpu":
            last[event.who] = event
    yield from (f"{_when(event)}: {event.event} took less than no time" for event in events if event.took < 0)


def _wants(events: list[Event], _error: int) -> Iterator[str]:
    wanted: Counter[tuple[str, str]] = Counter()
    for event in events:
        key = event.who, event.on
        if event.event == "wanted":
            wanted[key] += 1
        elif event.event == "got":
            if not wanted[key]:
                yield f"{_when(event)}: got {event.on}, which it had not wanted"
            wanted[key] = 0
        elif event.event in LOCK_ENDS:
            wanted[key] = 0


def _holds(events: list[Event], error: int) -> Iterator[str]:
    """One lock has one holder; who died, lapsed or was refused has lost it without giving it back."""
    lost = {event.who for event in events if event.event in ("died", "lapsed", "refused")}
    kinds = {event.on: event.more for event in events if event.event == "made"}
    holders: dict[str, list[Event]] = {}
    free = {on: int(more.get("value", 1)) for on, more in kinds.items() if "emaphore" in str(more.get("kind"))}
    for event in events:
        on = event.on
        if event.event == "got":
            if on in free:
                free[on] -= 1
                if free[on] < 0:
                    yield f"{_when(event)}: got {on}, of which no place was free"
                continue
            current = [held for held in holders.get(on, []) if held.who not in lost]
            if current and event.t + error >= current[-1].t:
                yield f"{_when(event)}: got {on} while {current[-1].who} had it, since {duration(current[-1].t / 1e9)}"
            holders[on] = [event]
        elif event.event == "released":
            if on in free:
                free[on] += 1
            elif held := holders.get(on):
                held.pop()
            elif on in kinds or "lock" in on:
                yield f"{_when(event)}: released {on}, which nobody had"


def _messages(events: list[Event], error: int) -> Iterator[str]:
    deaths = any(event.event == "died" for event in events)  # what a killed process had sent last, it may not have told
    for came, went in (("taken", "put"), ("received", "sent")):
        sent = {event.item: event for event in events if event.event == went and event.item}
        seen: dict[str, Event] = {}
        for event in events:
            if event.event != came or not event.item:
                continue
            source = sent.get(event.item)
            if source is None and not deaths:
                yield f"{_when(event)}: {came} {event.item} from {event.on}, which nobody had {went}"
            elif source is not None and event.t + error < source.t:
                yield f"{_when(event)}: {came} {event.item} from {event.on} before it was {went}, {_when(source)}"
            if event.item in seen:
                yield f"{_when(event)}: {came} {event.item} from {event.on}, as was {_when(seen[event.item])}"
            seen[event.item] = event


def _calls(events: list[Event], error: int) -> Iterator[str]:
    asked, begun = calls(events), dict[tuple[str, str], Event]()
    for event in events:
        if event.event == "begun":
            source = asked.get(event.item)
            if source is None:
                yield f"{_when(event)}: call {event.item} of {event.on} begins, for which nobody had asked"
            elif event.t + error < source.t:
                yield f"{_when(event)}: call {event.item} of {event.on} begins before it was asked for, {_when(source)}"
            begun[event.who, event.item] = event
        elif event.event == "done" and (event.who, event.item) not in begun:
            yield f"{_when(event)}: call {event.item} of {event.on} has ended, which had not begun"


def _sums(events: list[Event], _error: int) -> Iterator[str]:
    for lane in picture(events).lanes:
        spent = of_lane(lane)
        missing = abs(spent.wall - sum(spent.parts.values())) + lane.overlap
        if missing > SHARE * spent.wall and missing > 1_000:
            yield (
                f"{lane.who} ({lane.name}): run, wait, hold and idle make {duration(sum(spent.parts.values()) / 1e9)}"
                f" of {duration(spent.wall / 1e9)}, and {duration(lane.overlap / 1e9)} are claimed twice"
            )


def _deadlocks(events: list[Event], _error: int) -> Iterator[str]:
    """Who wants what the next one has, in a circle, at the end, or when somebody was interrupted: then they let go of it."""
    wishes: dict[str, Event] = {}
    held: dict[str, Event] = {}
    told: set[str] = set()
    for event in events:
        if event.more.get("interrupted"):
            yield from _circles(wishes, held, told)
        if event.event == "wanted":
            wishes[event.who] = event
        elif event.event in LOCK_ENDS:
            wishes.pop(event.who, None)
        if event.event == "got":
            held[event.on] = event
        elif event.event == "released":
            held.pop(event.on, None)
    yield from _circles(wishes, held, told)


def _circles(wishes: dict[str, Event], held: dict[str, Event], told: set[str]) -> Iterator[str]:
    for first in wishes:
        chain, who = list[str](), first
        while who in wishes and who not in chain and who not in told:
            chain.append(who)
            holder = held.get(wishes[who].on)
            who = holder.who if holder else ""
        if who in chain:
            circle = chain[chain.index(who) :]
            told.update(circle)
            yield "deadlock: " + "; ".join(
                f"{each} wants {wishes[each].on} ({wishes[each].at or '?'}),"
                f" which {held[wishes[each].on].who} has had since {held[wishes[each].on].at or '?'}"
                for each in circle
            )


RULES: tuple[Callable[[list[Event], int], Iterator[str]], ...] = (
    _words, _times_rise, _wants, _holds, _messages, _calls, _sums, _deadlocks,
)  # fmt: skip
