"""One program in its places, one under the other on one time axis: a lane for each thread, and one for each lock."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from producer.html.svg import el, num, text
from producer.html.thin import thinned
from producer.output import counted, duration
from producer.trace.lanes import STATES, Arrow, Lane, Picture, Slice

GUTTER, WIDTH, RIGHT = 208, 960, 28
ROW, HEAD, AXIS, GAP = 18, 30, 26, 14
MOST_LANES, MOST_LOCKS, SHOWN_ARROWS = 48, 8, 60

LAYERS = {
    "messages": ("taken", "received", "woken"),
    "calls": ("begun",),
    "hand-overs": ("handed over",),
    "starts and ends": ("started", "joined"),
}
"""Kinds of arrows, as one switches them on and off."""


@dataclass
class Panel:
    """One place.

    Attributes:
        title: Name of the place, or of the run.
        picture: What happened.
        most: Slices that may be drawn.
        most_arrows: Arrows of a kind that may be drawn.
    """

    title: str
    picture: Picture
    most: int = 6_000
    most_arrows: int = 600


@dataclass
class _Drawn:
    """What is told of a panel to the page's script, and what of it was left out."""

    lanes: list[dict[str, Any]] = field(default_factory=list)
    arrows: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Words:
    """Each word once; in the drawing's data it is a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def __call__(self, word: str) -> int:
        """The number of a word."""
        return self._numbers.setdefault(word, len(self._numbers))

    def all(self) -> list[str]:
        """The words, by their numbers."""
        return list(self._numbers)


def drawn(panels: list[Panel], name: str, label: str) -> str:
    """The timeline as markup: a drawing, its switches, and its data.

    Args:
        panels: The places.
        name: Of the element; letters and digits.
        label: What it is, for who cannot see it.
    """
    length = max((panel.picture.length for panel in panels), default=0) or 1
    scale = WIDTH / length
    words, y = Words(), float(AXIS)
    parts, data, notes = list[str](), list[_Drawn](), list[str]()
    for panel in panels:
        markup, found, y = _panel(panel, y, scale, words)
        parts += markup
        data.append(found)
        notes += [f"{panel.title}: {note}" for note in found.notes]
    height = y + 4
    told = {
        "length": length / 1e3,
        "gutter": GUTTER,
        "width": WIDTH,
        "words": words.all(),
        "fits": [[panel.title, panel.picture.length / 1e3] for panel in panels],
        "lanes": [lane for found in data for lane in found.lanes],
        "arrows": [arrow for found in data for arrow in found.arrows],
        "kinds": list(_KINDS),
    }
    axis = el("g", _ticks(length, height), class_="axis")
    window = el(
        "svg", of(_IN_TIME, parts), x=GUTTER, y=0, width=WIDTH, height=height, class_="window",
        viewBox=f"0 0 {num(length / 1e3)} {num(height)}", preserveAspectRatio="none",
    )  # fmt: skip
    drawing = el(
        "svg", of(_UNDER, parts), axis, window, of(_BESIDE, parts),
        class_="timeline", id=name, role="group", aria_label=label,
        viewBox=f"0 0 {GUTTER + WIDTH + RIGHT} {num(height)}",
    )  # fmt: skip
    script = f'<script type="application/json" id="{name}-data">{_safe(told)}</script>'
    under = el("p", escape("Not all is drawn. " + " ".join(notes)), class_="note") if notes else ""
    return el(
        "div", _switches(data, name), el("div", drawing, class_="scroll", tabindex="-1"), under, script, class_="view"
    )


_UNDER, _IN_TIME, _BESIDE = "u", "t", "b"
"""What a part of the drawing is: ground; drawn in units of time, and stretched when one looks closer; words and marks, which
keep their shape."""

_KINDS = tuple(kind for kinds in LAYERS.values() for kind in kinds)


def of(kind: str, parts: list[str]) -> str:
    """The parts of a kind."""
    return "".join(part[1:] for part in parts if part[0] == kind)


def _safe(data: Any) -> str:
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _panel(panel: Panel, y: float, scale: float, words: Words) -> tuple[list[str], _Drawn, float]:
    picture, found = panel.picture, _Drawn()
    lanes = _busiest(picture.lanes, found)
    pieces, quantum = thinned([lane.slices for lane in lanes], panel.most)
    if quantum:
        shown, there = sum(map(len, pieces)), sum(len(lane.slices) for lane in picture.lanes)
        found.notes.append(
            f"{there:,} slices are drawn as {shown:,}; those under {duration(quantum / 1e9)} may be joined."
        )
    parts = [_BESIDE + text(8, y + 19, panel.title, "place"), _BESIDE + text(GUTTER, y + 19, _crew(picture), "crew")]
    top, rows = y, dict[str, float]()
    names = {lane.who: lane.name or lane.who for lane in picture.lanes}
    y += HEAD
    for lane, slices in zip(lanes, pieces, strict=True):
        rows[lane.who] = y
        parts += _lane(lane, slices, y, scale)
        found.lanes.append(_data(lane.name or lane.who, y, slices, words, names))
        y += ROW
    for on, holds in _locks(picture, found):
        slices = [
            Slice(hold.start, hold.end, "crowded" if hold.wanted else "hold", names.get(hold.who, hold.who), hold.at)
            for hold in holds
        ]
        (few,), _ = thinned([slices], max(40, panel.most // 10))
        parts += _lock(on, few, y, scale)
        found.lanes.append(_data(on, y, few, words, names) | {"lock": 1})
        y += ROW
    parts += _arrows(picture.arrows, panel.most_arrows, rows, words, found)
    frame = el("rect", x=0, y=top + 3, width=GUTTER + WIDTH + RIGHT, height=y - top - 1, rx=6, class_="panel")
    return [_UNDER + frame, *parts], found, y + GAP


def _busiest(lanes: list[Lane], found: _Drawn) -> list[Lane]:
    if len(lanes) <= MOST_LANES:
        return lanes
    chosen = {
        lane.who for lane in sorted(lanes, key=lambda lane: -len(lane.slices) - 1e6 * bool(lane.marks))[:MOST_LANES]
    }
    found.notes.append(f"{len(lanes) - MOST_LANES} of {len(lanes)} threads, with the fewest events, have no lane.")
    return [lane for lane in lanes if lane.who in chosen]


def _locks(picture: Picture, found: _Drawn) -> Iterator[tuple[str, Any]]:
    most = sorted(picture.holds, key=lambda on: -len(picture.holds[on]))
    if len(most) > MOST_LOCKS:
        found.notes.append(f"{len(most) - MOST_LOCKS} of {len(most)} locks, those least held, have no lane.")
    for on in most[:MOST_LOCKS]:
        yield on, picture.holds[on]


def _crew(picture: Picture) -> str:
    processes = {lane.who.rpartition("/")[0] for lane in picture.lanes}
    hosts = {lane.host for lane in picture.lanes}
    threads = f"{counted(len(picture.lanes), 'thread')} in {counted(len(processes), 'process')}"
    return f"{threads} on {counted(len(hosts), 'host')}, {duration(picture.length / 1e9)}"


def _lane(lane: Lane, slices: list[Slice], y: float, scale: float) -> list[str]:
    process, _, thread = lane.who.rpartition("/")
    name = lane.name or f"thread {thread}"
    where = process.replace("/", " · ") if lane.name else process
    parts = [_IN_TIME + el("path", d=f"M{num(lane.start / 1e3)} {num(y + 9)}H{num(lane.end / 1e3)}", class_="life")]
    parts += [_IN_TIME + path for path in shapes(slices, y)]
    label = f"{name} on {lane.host}: {_told(lane, slices)}"
    beside = [
        text(14, y + 13, _cut(name, 17), "name"),
        text(GUTTER - 10, y + 13, _cut(where, 17), "where", text_anchor="end"),
    ]
    beside += [_mark(mark.event, mark.t, y, scale, mark.told) for mark in lane.marks]
    if lane.ending == "ended" and lane.name != "main":
        beside.append(_mark("ended", lane.end, y, scale, f"ended, exit code {lane.code}"))
    parts.append(_BESIDE + _named(y, beside, label))
    return parts


def _lock(on: str, slices: list[Slice], y: float, scale: float) -> list[str]:
    parts = [_IN_TIME + path for path in shapes(slices, y)]
    crowded = sum(piece.many for piece in slices if piece.state == "crowded")
    label = f"{on}: held {sum(piece.many for piece in slices)} times, {crowded} times while somebody waited"
    beside = [
        el("path", d=f"M15.5 {num(y + 9)}v-2.5a2.5 2.5 0 0 1 5 0v2.5M14 {num(y + 9)}h8v5.5h-8z", class_="lockmark"),
        text(28, y + 13, _cut(on, 26), "name"),
    ]
    for piece in slices:
        if (piece.end - piece.start) * scale > 5.8 * len(piece.on) + 6:
            crowded_too = " crowded-holder" if piece.state == "crowded" else ""
            middle = GUTTER + (piece.start + piece.end) / 2 * scale
            beside.append(text(middle, y + 13.5, piece.on, f"holder{crowded_too}", text_anchor="middle"))
    return [*parts, _BESIDE + _named(y, beside, label)]


def _named(y: float, beside: list[str], label: str) -> str:
    """A lane as something to point at and to step to; the first of a drawing is where the Tab key leads (see the script)."""
    hit = el("rect", x=4, y=y + 1, width=GUTTER + WIDTH, height=ROW - 1, rx=3, class_="hit")
    return el("g", hit, beside, class_="lane", tabindex="-1", role="img", aria_label=label)


def _data(name: str, y: float, slices: list[Slice], words: Words, names: dict[str, str]) -> dict[str, Any]:
    """A lane for the page's script; of each slice its start, its length, and then no more than there is to say."""
    rows = []
    for piece in slices:
        more = [
            words(piece.on),
            words(piece.at),
            words(names.get(piece.of, piece.of)),
            piece.many if piece.many > 1 else 0,
        ]
        while more and not more[-1]:
            more.pop()
        lasted = (round(piece.start / 1e3, 1), round((piece.end - piece.start) / 1e3, 1))
        rows.append([*lasted, STATES.index(piece.state), *more])
    return {"name": name, "y": y, "slices": rows}


_SHAPES = {"run": (7, 4), "hold": (3, 12), "crowded": (3, 12), "op": (5, 8), "wants": (4, 10)}
"""Where a state begins in its lane, and how high it is: shapes tell states apart where colours do not."""


def shapes(slices: list[Slice], y: float) -> Iterator[str]:
    """The slices of a lane that begins at ``y``, in microseconds; one path a state."""
    by_state: dict[str, list[Slice]] = defaultdict(list)
    for piece in slices:
        by_state[piece.state].append(piece)
    for state in STATES:
        if state == "idle" or not by_state[state]:
            continue
        if state == "waits":
            d = "".join(f"M{_t(piece.start)} {num(y + 9)}h{_t(piece.end - piece.start)}" for piece in by_state[state])
            yield el("path", d=d, class_=f"s {state}")
            continue
        top, height = _SHAPES[state]
        yield el("path", d=_boxes(by_state[state], y + top, height), class_=f"s {state}")
        if state == "crowded":
            yield el("path", d=_boxes(by_state[state], y + top, 4), class_="s crowd")


def _boxes(slices: Iterable[Slice], y: float, height: float) -> str:
    def box(piece: Slice) -> str:
        long = _t(piece.end - piece.start)
        return f"M{_t(piece.start)} {num(y)}h{long}v{height}h-{long}z"

    return "".join(map(box, slices))


def _t(nanoseconds: int) -> str:
    return num(round(nanoseconds / 1e3, 1))


SPOKEN = {
    "run": "running",
    "hold": "holding a lock",
    "crowded": "holding a lock that others want",
    "wants": "blocked on a lock",
    "waits": "waiting for others",
    "op": "in operations",
    "idle": "without a call",
}
"""What a state is called in a sentence."""


def _told(lane: Lane, slices: list[Slice]) -> str:
    spent: dict[str, int] = defaultdict(int)
    for piece in slices:
        spent[piece.state] += piece.end - piece.start
    told = ", ".join(f"{SPOKEN[state]} {duration(t / 1e9)}" for state, t in spent.items() if t)
    ending = {"ended": "; it came to its end", "": "; its record breaks off"}.get(lane.ending, "")
    marks = [mark.told for mark in lane.marks]
    more = f" and {len(marks) - 5} more" if len(marks) > 5 else ""
    return told + ending + "".join(f"; {mark}" for mark in marks[:5]) + more


def _mark(event: str, t: int, y: float, scale: float, told: str) -> str:
    x = GUTTER + t * scale
    name = {"outage begun": "outage", "outage ended": "outage", "signalled": "broken", "gave up": "broken"}.get(
        event, event
    )
    use = el("use", href=f"#m-{name}", x=-6, y=3, width=12, height=12)
    return el("g", use, el("title", escape(told)), class_=f"mark {name}", data_t=num(t / 1e3),
              transform=f"translate({num(x)} {num(y)})")  # fmt: skip


def _arrows(arrows: list[Arrow], most: int, rows: dict[str, float], words: Words, found: _Drawn) -> Iterator[str]:
    for layer, kinds in LAYERS.items():
        mine = [a for a in arrows if a.kind in kinds and a.source in rows and a.target in rows and a.source != a.target]
        if len(mine) > most:
            found.notes.append(f"{most} of {len(mine):,} {layer} have arrows.")
            mine = [mine[n * len(mine) // most] for n in range(most)]
        if not mine:
            continue
        lines, dots = "", ""
        for arrow in mine:
            y0, y1 = rows[arrow.source] + 9, rows[arrow.target] + 9
            lines += f"M{_t(arrow.start)} {num(y0)}L{_t(arrow.end)} {num(y1)}"
            dots += f"M{_t(arrow.end)} {num(y1)}h0"
            found.arrows.append([
                round(arrow.start / 1e3, 1), y0, round(arrow.end / 1e3, 1), y1, _KINDS.index(arrow.kind), words(arrow.on)
            ])  # fmt: skip
        off = " off" if len(mine) > SHOWN_ARROWS else ""
        name = layer.replace(" ", "-")
        yield _IN_TIME + el("g", el("path", d=lines), el("path", d=dots, class_="tip-of"), class_=f"arrows {name}{off}")


def _ticks(length: int, height: float) -> Iterator[str]:
    step = nice(length / 10)
    for index in range(int(length / step) + 1):
        x = GUTTER + index * step / length * WIDTH
        yield el("path", d=f"M{num(x)} {AXIS - 6}V{num(height - 4)}")
        yield text(x, AXIS - 10, duration(index * step / 1e9) if index else "0", text_anchor="middle")


def nice(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not less than a number."""
    power = 1.0
    while power * 10 <= rough:
        power *= 10
    return next(power * by for by in (1, 2, 5, 10) if power * by >= rough)


def _switches(data: list[_Drawn], name: str) -> str:
    kinds = {_KINDS[int(arrow[4])] for found in data for arrow in found.arrows}
    boxes = [
        el("label", f'<input type="checkbox" data-layer="{layer.replace(" ", "-")}"> {layer}')
        for layer, those in LAYERS.items()
        if kinds & set(those)
    ]
    buttons = [
        el("button", label, type="button", data_do=do, title=title)
        for label, do, title in (
            ("+", "in", "Look closer (key +)"),
            ("\u2212", "out", "Look from further away (key -)"),
            ("all", "all", "All of it (key 0)"),
        )
    ]  # fmt: skip
    arrows = el("span", "arrows: ", boxes, class_="layers") if boxes else ""
    return el("div", el("span", buttons, class_="zoom"), arrows, class_="switches", data_for=name)


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
