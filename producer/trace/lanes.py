"""A trace as lanes: for each thread what it did from when to when, for each lock who had it, and the arrows between them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

from lab.trace.events import Event

STATES = ("run", "hold", "crowded", "wants", "waits", "op", "idle")
"""What a thread does: it runs; holds a lock that nobody wants, or that somebody waits for; wants one and is blocked; waits
for others; is in the middle of an operation (on a cluster: the wire); is a pool's worker without a call."""

WAIT_ENDS = ("woken", "taken", "received", "put", "joined", "gave up", "refused")
LOCK_ENDS = ("got", "gave up", "refused")
ARROWS = {"taken": "put", "received": "sent", "started": "starts", "joined": "ended"}
"""An event with an item, and the event at the other end of its arrow."""


@dataclass(slots=True)
class Slice:
    """What a thread did for a while.

    Attributes:
        start, end: Nanoseconds since the run began.
        state: One of ``STATES``.
        on: The primitive that it is about, if it is about one.
        at: Line of the program.
        of: Whom it waited for, as far as is known.
        many: How many slices are drawn as this one.
    """

    start: int
    end: int
    state: str
    on: str = ""
    at: str = ""
    of: str = ""
    many: int = 1


@dataclass(slots=True)
class Mark:
    """Something that happened at one moment: a death, a redelivery, a refused write, an outage."""

    t: int
    event: str
    on: str
    at: str
    told: str


@dataclass
class Lane:
    """One thread, which may be a process.

    Attributes:
        who: ``host/pid/thread``.
        name: What the program calls it.
        start, end: When it was heard of first and last.
        ending: ``ended``, ``died`` or ``lapsed``; empty if the record breaks off with the trace.
        code: Its exit code, if known.
        cpu, ready: Nanoseconds on a core, and ready without one; None where the kernel did not say.
        slices: From start to end, without gaps.
        overlap: Nanoseconds that two of its events claim at once; 0 in a sound trace.
        worker: Whether it is a pool's worker.
        marks: What happened to it at one moment.
    """

    who: str
    name: str = ""
    start: int = 0
    end: int = 0
    ending: str = ""
    code: int | None = None
    cpu: int | None = None
    ready: int | None = None
    slices: list[Slice] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    overlap: int = 0
    worker: bool = False

    @property
    def host(self) -> str:
        """Name of its host."""
        return self.who.split("/")[0]


@dataclass(slots=True)
class Hold:
    """Somebody had a lock for a while; ``ended`` is False if nobody saw it given back."""

    on: str
    who: str
    start: int
    end: int
    at: str
    ended: bool = True
    wanted: bool = False


@dataclass(slots=True)
class Arrow:
    """Something went from one lane to another."""

    kind: str
    start: int
    source: str
    end: int
    target: str
    on: str


@dataclass
class Picture:
    """One run, ready to be drawn or counted.

    Attributes:
        lanes: In order of host, process, and time.
        holds: By lock, in order of time.
        arrows: Messages, calls, starts, hand-overs, and who woke whom.
        length: Nanoseconds from its first event to its last.
    """

    lanes: list[Lane]
    holds: dict[str, list[Hold]]
    arrows: list[Arrow]
    length: int


def picture(events: list[Event]) -> Picture:
    """Make one of the events of a run, in whatever order and state they are."""
    by_thread: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_thread[event.who].append(event)
    end = max((event.t + event.took for event in events), default=0)
    holds = _holds(events, end)
    waits = _wanted(by_thread)
    for on, several in holds.items():
        _see_crowds(several, waits.get(on, []))
    lanes = [_lane(who, mine, holds) for who, mine in by_thread.items()]
    lanes.sort(key=lambda lane: (lane.name != "main", lane.host, lane.start))
    return Picture(lanes, holds, list(_arrows(events)), end)


# holds


def _holds(events: list[Event], end: int) -> dict[str, list[Hold]]:
    """Who had what. A hold that nobody saw given back ends with its holder, or with the next one's."""
    found: dict[str, list[Hold]] = defaultdict(list)
    open_: dict[str, list[Hold]] = defaultdict(list)
    places = {event.on: event.more.get("value", 1) for event in events if event.event == "made"}
    for event in events:
        on = event.on
        if event.event == "got":
            current = open_[on]
            if current and places.get(on, 1) == 1:
                _close(current.pop(0), event.t, ended=False)
            current.append(Hold(on, event.who, event.t, end, event.at))
            found[on].append(current[-1])
        elif event.event == "released" and open_[on]:
            current = open_[on]
            mine = next((hold for hold in current if hold.who == event.who), current[0])
            current.remove(mine)
            _close(mine, event.t)
        elif event.event in ("died", "refused"):
            for current in open_.values():
                for hold in [hold for hold in current if hold.who == event.who]:
                    current.remove(hold)
                    _close(hold, event.t, ended=False)
    for current in open_.values():
        for hold in current:
            hold.ended = False
    return dict(found)


def _close(hold: Hold, t: int, ended: bool = True) -> None:
    hold.end, hold.ended = max(t, hold.start), ended


def _wanted(by_thread: dict[str, list[Event]]) -> dict[str, list[tuple[int, int]]]:
    """For each lock the times in which somebody waited for it."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for mine in by_thread.values():
        last = mine[-1].t
        wish: dict[str, Event] = {}
        for event in mine:
            if event.event == "wanted":
                wish[event.on] = event
            elif event.event in LOCK_ENDS and (begun := wish.pop(event.on, None)):
                found[event.on].append((begun.t, event.t))
        for on, begun in wish.items():
            found[on].append((begun.t, max(last, begun.t)))
    return found


def _see_crowds(holds: list[Hold], waits: list[tuple[int, int]]) -> None:
    starts = sorted(start for start, _ in waits)
    ends = sorted(end for _, end in waits)
    for hold in holds:
        # somebody who began to wait before it ended, and went on for longer than when it began
        hold.wanted = bisect_right(starts, hold.end - 1) > bisect_right(ends, hold.start)


# one thread


def _lane(who: str, events: list[Event], all_holds: dict[str, list[Hold]]) -> Lane:
    lane = Lane(who, start=min(event.t for event in events), end=max(event.t + event.took for event in events))
    lane.worker = any(event.event == "begun" for event in events)
    crowded = {
        (hold.on, hold.start) for several in all_holds.values() for hold in several if hold.wanted and hold.who == who
    }
    _describe(lane, events)
    draw = _Draw(lane, crowded)
    for event in events:
        draw.take(event)
    draw.finish()
    return lane


def _describe(lane: Lane, events: list[Event]) -> None:
    first: dict[str, int] = {}
    for event in events:
        more = event.more
        if event.event == "started":
            lane.name = str(more.get("name", "")) or lane.name
        if event.event in ("ended", "died", "lapsed"):
            lane.ending = "lapsed" if lane.ending == "lapsed" else event.event
            lane.code = more.get("code")
        for name in ("cpu", "ready"):
            if isinstance(value := more.get(name), int):
                first.setdefault(name, value if event.event in ("started", "cpu") else 0)
                setattr(lane, name, max(0, value - first[name]))
        if mark := _mark(event):
            lane.marks.append(mark)


def _mark(event: Event) -> Mark | None:
    more = event.more
    told = {
        "died": "died" if more.get("code") is None else f"died, exit code {more['code']}",
        "lapsed": "lost its lease",
        "redelivered": f"redelivered: {more.get('item')} had begun at {more.get('of')}",
        "refused": "refused by the fence: it had been taken for dead",
        "outage begun": "Redis does not answer",
        "outage ended": "Redis answers again",
        "broken": f"broken on purpose: {more.get('name')}",
        "signalled": f"ended {event.on} by a signal",
        "gave up": more.get("interrupted") and "interrupted: Ctrl-C",
    }.get(event.event)
    return Mark(event.t, event.event, event.on, event.at, told) if told else None


class _Draw:
    """Goes along the events of one thread and cuts its time into slices."""

    def __init__(self, lane: Lane, crowded: set[tuple[str, int]]) -> None:
        self.lane, self.crowded = lane, crowded
        self.at = lane.start
        self.held: dict[str, tuple[bool, str]] = {}
        self.idle = False
        self.waiting: Event | None = None

    def take(self, event: Event) -> None:
        word = event.event
        if word in ("cpu", "died", "lapsed", "made", "redelivered", "outage begun", "outage ended"):
            return
        if self.waiting is not None and word in (*WAIT_ENDS, *LOCK_ENDS) and event.on == self.waiting.on:
            self._wait_until(event)
        else:
            self._own_until(event.t)
        if event.took:
            self._add(event.t, event.t + event.took, "op", event)
        if word in ("wanted", "waits"):
            self.waiting = event
        elif word == "got":
            self.held[event.on] = ((event.on, event.t) in self.crowded, event.at)
        elif word in ("released", "refused"):
            self.held.pop(event.on, None)
        elif word in ("begun", "done", "started"):
            self.idle = self.lane.worker and word != "begun"

    def _wait_until(self, end: Event) -> None:
        assert self.waiting is not None
        begun, self.waiting = self.waiting, None
        lock = begun.event == "wanted"
        # a lock that nobody had is not waited for: what that takes is the operation
        of = (lock and begun.more.get("of")) or end.more.get("of")
        state = ("wants" if of else "op") if lock else "waits"
        self._add(begun.t, end.t, state, begun, str(of or ""))

    def _own_until(self, t: int) -> None:
        if self.waiting is not None:  # its end was never told
            begun, self.waiting = self.waiting, None
            self._add(begun.t, t, "wants" if begun.event == "wanted" else "waits", begun, str(begun.more.get("of", "")))
        elif t > self.at:
            self._own(t)

    def _own(self, t: int) -> None:
        state, on, at = ("idle" if self.idle else "run"), "", ""
        if self.held and not self.idle:
            on, (crowded, at) = next(
                ((on, held) for on, held in self.held.items() if held[0]), next(iter(self.held.items()))
            )
            state = "crowded" if crowded else "hold"
        self.lane.slices.append(Slice(self.at, t, state, on, at))
        self.at = t

    def _add(self, start: int, end: int, state: str, event: Event, of: str = "") -> None:
        if start > self.at:
            self._own(start)
        self.lane.overlap += self.at - start
        if end > self.at:
            self.lane.slices.append(Slice(self.at, end, state, event.on, event.at, of))
            self.at = end

    def finish(self) -> None:
        self._own_until(self.lane.end)


# arrows


def _arrows(events: list[Event]) -> list[Arrow]:
    return [*_of_items(events), *_of_calls(events), *_of_locks(events)]


def _of_items(events: list[Event]) -> list[Arrow]:
    sent: dict[tuple[str, str], Event] = {}
    starts: dict[str, str] = {}
    ended: dict[str, Event] = {}
    found = []
    for event in events:
        if event.event == "started":
            starts[event.who] = event.item
        elif event.event in ("ended", "died"):
            ended[starts.get(event.who, "")] = event
        if event.item and event.event in ("put", "sent", "starts"):
            sent[event.event, event.item] = event
    for event in events:
        word = ARROWS.get(event.event)
        if not word or not event.item:
            continue
        source = ended.get(event.item) if word == "ended" else sent.get((word, event.item))
        if source is not None:
            found.append(Arrow(event.event, source.t, source.who, event.t, event.who, event.on or source.on))
    return found


def calls(events: list[Event]) -> dict[str, Event]:
    """By the number of each call, where it was asked for."""
    found = {}
    for event in events:
        if event.event == "asked" and event.item:
            token, _, first = event.item.partition("-")
            for number in range(int(event.more.get("count", 1))):
                found[f"{token}-{int(first) + number}"] = event
    return found


def _of_calls(events: list[Event]) -> list[Arrow]:
    asked = calls(events)
    return [
        Arrow("begun", source.t, source.who, event.t, event.who, event.on)
        for event in events
        if event.event == "begun" and (source := asked.get(event.item))
    ]


def _of_locks(events: list[Event]) -> list[Arrow]:
    """A lock that was handed over, and who was woken by whom."""
    last: dict[tuple[str, str], Event] = {}
    found = []
    for event in events:
        if event.event in ("released", "set", "notified", "waits", "done"):
            last[event.on, event.who] = event
        elif event.event in ("got", "woken") and (of := event.more.get("of")) and (source := last.get((event.on, of))):
            kind = "handed over" if event.event == "got" else "woken"
            found.append(Arrow(kind, source.t, source.who, event.t, event.who, event.on))
    return found
