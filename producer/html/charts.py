"""The measurements as pictures: costs, lost updates, speed-ups, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

from producer.comparison import Comparison
from producer.html.svg import el, num, text
from producer.html.timeline import nice
from producer.output import duration
from producer.report import times
from producer.runs import Run
from producer.trace.spent import PARTS, Spent

LABELS, PLOT, END = 250, 620, 90
SHAPES = {
    "threads": "M0-5.2a5.2 5.2 0 1 1 0 10.4a5.2 5.2 0 1 1 0-10.4z",
    "processes": "M-4.6-4.6h9.2v9.2h-9.2z",
    "cluster": "M0-6L6 4.8H-6z",
    "interpreters": "M0-6.4L6.4 0L0 6.4L-6.4 0z",
    "free-threaded": "M-6-4.8H6L0 6z",
}
"""A shape for each place: colours alone cannot be told apart by everybody, nor on paper."""


def _shape(place: str, x: float, y: float, told: str) -> str:
    title = el("title", escape(told))
    return el("path", title, d=SHAPES.get(place, SHAPES["threads"]), class_=f"place-{place}",
              transform=f"translate({num(x)} {num(y)})")  # fmt: skip


def key_of_places(places: list[str]) -> str:
    """Which shape is which place."""
    parts = [
        el(
            "span",
            el("svg", _shape(place, 8, 8, place), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true"),
            place,
        )
        for place in places
    ]
    return el("p", parts, class_="key")


def _drawing(parts: list[str], height: float, label: str) -> str:
    box = f"0 0 {LABELS + PLOT + END} {num(height)}"
    return el(
        "div",
        el("svg", parts, viewBox=box, role="img", aria_label=label, class_="chart"),
        class_="scroll",
        tabindex="-1",
    )


# costs


def costs(found: Comparison) -> str:
    """What one of each operation cost in each place, on a scale where every step is ten times the one before."""
    rows = list(_priced(found))
    prices = [price for *_, by in rows for price in by.values()]
    if not prices:
        return ""
    low, high = math.floor(math.log10(min(prices))), math.ceil(math.log10(max(prices)))

    def x(price: float) -> float:
        return LABELS + (math.log10(price) - low) / max(high - low, 1) * PLOT

    y, parts, last = 30.0, list[str](), ""
    body = list[str]()
    for concept, name, by in rows:
        if concept != last:
            y += 8
            body.append(text(8, y + 12, concept, "concept"))
            y, last = y + 18, concept
        body.append(text(LABELS - 14, y + 12, name, "row", text_anchor="end"))
        ordered = sorted(by.items(), key=lambda item: item[1])
        body.append(el("path", d=f"M{num(x(ordered[0][1]))} {num(y + 8)}H{num(x(ordered[-1][1]))}", class_="reach"))
        body += [_shape(place, x(price), y + 8, f"{name} on {place}: {duration(price)}") for place, price in ordered]
        if len(ordered) > 1:
            ratio = ordered[-1][1] / ordered[0][1]
            body.append(text(LABELS + PLOT + 12, y + 12, times(ratio), "ratio"))
        y += 19
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(el("path", d=f"M{num(at)} 24V{num(y + 4)}", class_="grid"))
        parts.append(
            text(at, 16, duration(10.0**power).replace(".00", "").replace(".0", ""), "tick", text_anchor="middle")
        )
    return key_of_places(found.places) + _drawing(
        [*parts, *body], y + 10, "Costs by place; the same numbers are in the table below"
    )


def _priced(found: Comparison) -> Iterator[tuple[str, str, dict[str, float]]]:
    for concept in found.concepts:
        runs = [run for run in found.runs if run.result.concept == concept]
        for name in dict.fromkeys(name for run in runs for name in run.result.costs):
            by = {run.result.place: run.result.costs[name] for run in runs if run.result.costs.get(name, 0) > 0}
            if by:
                yield concept, name, by


def costs_table(found: Comparison) -> str:
    """The same as a table."""
    head = el("tr", el("th", "operation", scope="col"), [el("th", place, scope="col") for place in found.places])
    rows = [
        el("tr", el("th", escape(f"{concept}: {name}"), scope="row"),
           [el("td", duration(by[place]) if place in by else "-") for place in found.places])
        for concept, name, by in _priced(found)
    ]  # fmt: skip
    return el("table", el("thead", head), el("tbody", rows), class_="numbers")


# lost updates


def lost(found: Comparison) -> str:
    """How many updates each trial of the counter lost: one mark a trial."""
    runs = [run for run in found.runs if run.result.concept == "counter"]
    rows = list(_trials(runs))
    most = max((max(by) for _, _, by in rows), default=0)
    if not rows:
        return ""
    step = nice(max(most, 1) / 6)
    top = step * math.ceil(max(most, 1) / step)
    y, parts, last = 30.0, list[str](), ""
    for way, place, by in rows:
        if way != last:
            y += 10 if last else 0
            parts.append(text(8, y + 12, way.replace("_", " "), "concept"))
            last = way
        parts.append(text(LABELS - 24, y + 12, place, "row", text_anchor="end"))
        parts.append(el("path", d=f"M{LABELS} {num(y + 8)}h{PLOT}", class_="base"))
        for losses, trials in sorted(by.items()):
            told = f"{way}, {place}: {trials} of {sum(by.values())} trials lost {losses}"
            middle = LABELS + losses / top * PLOT
            parts += [_shape(place, middle + 4 * (n - (trials - 1) / 2), y + 8, told) for n in range(trials)]
        told = " ".join(str(losses) for losses, trials in sorted(by.items()) for _ in range(trials))
        parts.append(text(LABELS + PLOT + 24, y + 12, told if len(told) < 12 else f"up to {max(by)}", "ratio"))
        y += 19
    for index in range(round(top / step) + 1):
        at = LABELS + index * step / top * PLOT
        parts.insert(0, el("path", d=f"M{num(at)} 24V{num(y + 2)}", class_="grid"))
        parts.append(text(at, 16, f"{step * index:g}", "tick", text_anchor="middle"))
    told = "; ".join(f"{way} on {place}: {', '.join(map(str, sorted(by)))}" for way, place, by in rows)
    return key_of_places(found.places) + _drawing(parts, y + 8, f"Updates lost in each trial. {told}")


def _trials(runs: list[Run]) -> Iterator[tuple[str, str, dict[int, int]]]:
    suffix = ": trials by updates lost"
    ways = dict.fromkeys(
        name.removesuffix(suffix) for run in runs for name in run.result.facts if name.endswith(suffix)
    )
    for way in ways:
        for run in runs:
            if by := run.result.facts.get(way + suffix):
                yield way, run.result.place, {int(losses): int(trials) for losses, trials in by.items()}


# speed-ups


def speedups(found: Comparison) -> str:
    """How much faster several workers were, beside the number of cores."""
    by_place = {
        run.result.place: run.result.facts["speed-up by workers"]
        for run in found.runs
        if run.result.concept == "gil" and "speed-up by workers" in run.result.facts
    }
    if not by_place:
        return ""
    cores = found.machine.cores
    titles = {"compute": "items that compute", "wait": "items that wait"}
    parts, width = list[str](), 380.0
    for index, (kind, title) in enumerate(titles.items()):
        parts += _speedup(by_place, kind, title, 60 + index * (width + 70), width, cores)
    told = "; ".join(f"{place}, {kind}: {by.get(kind)}" for place, by in by_place.items() for kind in titles)
    return key_of_places(found.places) + _drawing(parts, 300, f"Speed-up by workers, on {cores} cores. {told}")


def _speedup(by_place: dict[str, Any], kind: str, title: str, left: float, width: float, cores: int) -> Iterator[str]:
    workers = sorted({int(n) for by in by_place.values() for n in by.get(kind, {})})
    top = max([float(workers[-1]), *(float(x) for by in by_place.values() for x in by.get(kind, {}).values())])

    def at(n: float, speed: float) -> tuple[float, float]:
        return left + (n - 1) / max(workers[-1] - 1, 1) * (width - 60), 262 - speed / top * 210

    yield text(left, 22, title, "concept")
    for whole in range(1, math.floor(top) + 1):
        x, y = at(1, whole)
        yield el("path", d=f"M{num(x)} {num(y)}h{num(width - 60)}", class_="grid")
        yield text(x - 10, y + 4, f"x{whole}", "tick", text_anchor="end")
    for n in workers:
        yield text(at(n, 0)[0], 284, f"{n} worker{'s' * (n > 1)}", "tick", text_anchor="middle")
    (x0, y0), (x1, y1) = at(1, 1), at(workers[-1], workers[-1])
    yield el("path", d=f"M{num(x0)} {num(y0)}L{num(x1)} {num(y1)}", class_="ideal")
    if 1 <= cores <= workers[-1]:
        x, _ = at(cores, 0)
        yield el("path", d=f"M{num(x)} 52V266", class_="cores")
        yield text(x + 5, 48, f"{cores} core{'s' * (cores > 1)}", "tick")
    ends: list[float] = []
    for place, by in by_place.items():
        points = [
            (at(int(n), float(speed)), float(speed))
            for n, speed in sorted(by.get(kind, {}).items(), key=lambda i: int(i[0]))
        ]
        yield el("path", d="M" + "L".join(f"{num(x)} {num(y)}" for (x, y), _ in points), class_=f"line place-{place}")
        for (x, y), speed in points:
            yield _shape(place, x, y, f"{place}: x{speed}")
        (x, y), speed = points[-1]
        while any(abs(y - other) < 14 for other in ends):
            y += 3
        ends.append(y)
        yield text(x + 12, y + 4, f"{place} x{speed}", "row")


# where the time went


def spent(by_place: dict[str, Spent]) -> str:
    """A bar for each place: all its threads' time, in parts that add up; and the same as a table."""
    y, bars = 6.0, list[str]()
    for place, found in by_place.items():
        bars.append(text(LABELS - 14, y + 18, place, "row", text_anchor="end"))
        x = float(LABELS)
        for part in PARTS:
            share = found.parts[part] / found.wall if found.wall else 0.0
            if share <= 0:
                continue
            wide = share * (PLOT + END - 10)
            told = f"{place}: {part}, {duration(found.parts[part] / 1e9)}, {share:.0%}"
            bars += _patch(part, x, y, wide, 26, told)
            if wide > 40:
                words = f"{part} {share:.0%}"
                words = words if wide > 7 * len(words) else f"{share:.0%}"
                bars.append(text(x + wide / 2, y + 17.5, words, f"in {_part(part)}",
                                 text_anchor="middle"))  # fmt: skip
            x += wide
        y += 34
    label = "Where the time of all threads went; the same numbers are in the table below"
    return _drawing(bars, y, label) + _spent_table(by_place)


def _patch(part: str, x: float, y: float, width: float, height: float, told: str) -> Iterator[str]:
    """An area in the colour of a part and, for who does not tell colours apart, in its weave."""
    size = {"x": x, "y": y, "width": width, "height": height}
    yield el("rect", el("title", escape(told)), **size, class_=_part(part))
    if part in WEAVES:
        yield el("rect", **size, fill=f"url(#{_part(part)})", class_="hatch")


WEAVES = {
    "no core": "M0 8L8 0M-2 2L2-2M6 10l4-4",
    "asleep": "M3 4h2",
    "lock": "M0 0l8 8M8 0L0 8",
    "operations": "M4 0v8",
    "message": "M0 4h8",
}
"""How each part is woven; the others are plain."""


def weaves() -> Iterator[str]:
    """The patterns that parts are drawn with, for the page to have once."""
    for part, d in WEAVES.items():
        yield el(
            "pattern", el("path", d=d), id=_part(part), width=8, height=8, patternUnits="userSpaceOnUse", class_="weave"
        )


def _part(part: str) -> str:
    return f"part-{part.replace(' ', '-')}"


def _spent_table(by_place: dict[str, Spent]) -> str:
    head = el("tr", el("th", "part", scope="col"), [el("th", escape(place), scope="col") for place in by_place])
    rows = [
        el("tr", el("th", swatch(part), f"{part} ", el("small", escape(PARTS[part])), scope="row"),
           [_cell(found.parts[part], found.wall) for found in by_place.values()])
        for part in PARTS
        if any(found.parts[part] for found in by_place.values())
    ]  # fmt: skip
    walls = [_cell(found.wall, found.wall) for found in by_place.values()]
    whole = el("tr", el("th", "all threads together", scope="row"), walls)
    return el("table", el("thead", head), el("tbody", rows), el("tfoot", whole), class_="numbers parts")


def swatch(part: str) -> str:
    """A little box in the manner of a part."""
    box = _patch(part, 0.5, 0.5, 15, 11, part)
    return el("svg", box, viewBox="0 0 16 12", width=16, height=12, class_="swatch", aria_hidden="true")


def _cell(part: int, wall: int) -> str:
    return el("td", duration(part / 1e9) if part else "-", el("small", f" {part / wall:.0%}" if part and wall else ""))
