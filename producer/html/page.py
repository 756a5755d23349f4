"""The report: one file, which opens from the disk, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lab.concepts import CONCEPTS
from lab.trace import measure
from lab.trace.events import Trace
from producer import report
from producer.catalogue import idea
from producer.comparison import Comparison
from producer.html import charts, legend
from producer.html.svg import el
from producer.html.thin import shares
from producer.html.timeline import Panel, drawn
from producer.machine import Machine
from producer.output import counted, duration
from producer.runs import Run
from producer.trace.check import violations
from producer.trace.lanes import picture
from producer.trace.spent import of_picture

SLICES, SLICES_OF_MANY = 24_000, 6_000
"""Slices that a page draws at the most: of one program, and of a comparison of all."""

ARROWS = 600, 100
"""Arrows of a kind in one place, likewise."""

Section = tuple[str, str, str]
"""Anchor, title, and what is in it."""


def write(path: str, trace: Trace, comparison: Comparison | None = None, told: str = "") -> None:
    """Write a report.

    Args:
        path: The file.
        trace: What happened; may be empty.
        comparison: What was measured, without a trace.
        told: How the command ended.
    """
    Path(path).write_text(made(trace, comparison, told), encoding="utf-8")


def made(trace: Trace, comparison: Comparison | None = None, told: str = "") -> str:
    """The report as the text of an HTML file."""
    title = _title(trace, comparison)
    contents = [*_measured(comparison), *_pictures(trace, comparison), *_conditions(trace, comparison)]
    return framed(title, _verdict(trace, comparison, told), contents, "view.js", legend.definitions())


def framed(title: str, verdict: str, contents: Iterable[Section], script: str, before: str = "") -> str:
    """A page of sections.

    Args:
        title: What it is about.
        verdict: How it ended, as markup.
        contents: The sections.
        script: The file of its script; all is there without it.
        before: Markup that others refer to.
    """
    contents = list(contents)
    style, code = (files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", script))
    sections = [
        el("section", el("h2", escape(name), id=anchor), body, aria_labelledby=anchor)
        for anchor, name, body in contents
    ]
    links = el(
        "nav", [el("a", escape(name), href=f"#{anchor}") for anchor, name, _ in contents], aria_label="In this report"
    )
    header = el("header", el("p", "Crosshost", class_="brand"), el("h1", escape(title)), verdict, links)
    head = el(
        "head",
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        el("title", escape(f"{title} · Crosshost")),
        f"<style>{style}</style>",
    )
    body = el("body", before, header, el("main", sections), _tip(), f"<script>{code}</script>")
    return f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'


def _tip() -> str:
    return (
        '<div class="tip" id="tip" hidden></div><div class="spoken" id="spoken" role="status" aria-live="polite"></div>'
    )


def _title(trace: Trace, comparison: Comparison | None) -> str:
    names = (
        comparison.concepts if comparison else list(dict.fromkeys(str(run.get("concept", "?")) for run in trace.runs))
    )
    places = comparison.places if comparison else list(dict.fromkeys(str(run.get("place", "?")) for run in trace.runs))
    what = ", ".join(names) if len(names) <= 3 else f"{len(names)} programs"
    return f"{what} on {', '.join(places)}" if names else "An empty trace"


def _verdict(trace: Trace, comparison: Comparison | None, told: str) -> str:
    parts = []
    if comparison:
        failed = [run for run in comparison.runs if not run.ok]
        claims = sum(len(run.result.checks) for run in comparison.runs)
        runs = counted(len(comparison.runs), "run")
        words = f"✗ {len(failed)} of {runs} failed" if failed else f"✓ All {claims} claims of {runs} held"
        parts.append(el("p", words, class_="verdict bad" if failed else "verdict good"))
    if told:
        parts.append(el("ul", [el("li", escape(line.strip())) for line in told.split(";")], class_="told"))
    if trace.events and (wrong := list(violations(trace))):
        parts.append(el("p", f"! The trace: {escape(wrong[0])}", class_="verdict bad"))
    return "".join(parts)


def _measured(found: Comparison | None) -> Iterator[Section]:
    if found is None:
        return
    yield "glance", "At a glance", _glance(found)
    if drawing := charts.costs(found):
        table = el("details", el("summary", "The same as numbers"), charts.costs_table(found))
        how = el(
            "p",
            "Each step to the right is ten times as much. On the right: how many times the cheapest place.",
            class_="how",
        )
        yield "costs", "What one of each costs", how + drawing + table
    if drawing := charts.lost(found):
        how = "One mark a trial: how many of 500 additions it lost. “window open” sleeps between read and write, on purpose."
        yield "lost", "Lost updates", el("p", how, class_="how") + drawing
    if drawing := charts.speedups(found):
        how = "The same items on 1, 2 and 4 workers. The dashed line is as many times as fast as there are workers."
        yield "speedups", "What several workers speed up", el("p", how, class_="how") + drawing


def _glance(found: Comparison) -> str:
    by = {(run.result.concept, run.result.place): run for run in found.runs}
    head = el("tr", el("th", "program", scope="col"), [el("th", place, scope="col") for place in found.places])
    rows = [
        el("tr", el("th", el("a", escape(concept), href=f"#{_anchor(concept)}"), scope="row"),
           [_cell(by.get((concept, place))) for place in found.places])
        for concept in found.concepts
    ]  # fmt: skip
    return el("table", el("thead", head), el("tbody", rows), class_="numbers glance")


def _cell(run: Run | None) -> str:
    if run is None:
        return el("td", "-")
    word = el("span", "✓ ok" if run.ok else "✗ failed", class_="good" if run.ok else "bad")
    return el("td", word, f" {duration(run.result.seconds)}")


def _anchor(concept: str) -> str:
    return "program-" + "".join(letter if letter.isalnum() else "-" for letter in concept)


def _pictures(trace: Trace, comparison: Comparison | None) -> Iterator[Section]:
    """Each program in all its places."""
    concepts: dict[str, list[int]] = {name: [] for name in (comparison.concepts if comparison else ())}
    for number, run in enumerate(trace.runs):
        concepts.setdefault(str(run.get("concept", "?")), []).append(number)
    pictures = {number: picture(trace.of(number)) for number in range(len(trace.runs))}
    counts = [sum(len(lane.slices) for lane in pictures[number].lanes) for number in pictures]
    most = shares(counts, SLICES_OF_MANY if comparison else SLICES)
    for index, (concept, numbers) in enumerate(concepts.items()):
        panels = [
            Panel(str(trace.runs[number].get("place", "?")), pictures[number], most[number], ARROWS[bool(comparison)])
            for number in numbers
        ]
        body = ""
        if concept in CONCEPTS:
            body += el("p", escape(idea(concept)), class_="idea")
        if comparison:
            body += _happened([run for run in comparison.runs if run.result.concept == concept])
        if panels:
            body += legend.made() if index == 0 else ""
            body += drawn(panels, f"view{index}", f"{concept}: what each thread did, and who had each lock")
            parts = {panel.title: of_picture(panel.picture) for panel in panels}
            body += el("h3", "Where the time of its threads went") + charts.spent(parts)
            if not all(part.measured for part in parts.values()):
                body += el("p", "The kernel did not say of all threads how long they were on a core.", class_="note")
        yield _anchor(concept), concept, body


def _happened(runs: list[Run]) -> str:
    rows = []
    for run in runs:
        failures = [el("strong", escape(line), class_="bad") for line in ([] if run.ok else run.failures())]
        claims = [
            el("li", "✓ " if check.held else "✗ ", escape(check.claim), class_="good" if check.held else "bad")
            for check in run.result.checks
        ]
        more = (
            el("details", el("summary", f"{counted(len(claims), 'claim')} checked"), el("ul", claims)) if claims else ""
        )
        rows.append(el("dt", f"{run.result.place} ", el("small", duration(run.result.seconds))))
        rows.append(
            el(
                "dd",
                failures,
                el("p", escape(run.result.happened)),
                el("p", escape(run.result.why), class_="why"),
                more,
            )
        )
    return el("dl", rows, class_="happened")


def _conditions(trace: Trace, comparison: Comparison | None) -> Iterator[Section]:
    rows: list[tuple[str, str]] = []
    if comparison:
        rows.append(
            ("when", f"{comparison.started}, for {duration(comparison.seconds)}; crosshost {comparison.version}")
        )
        rows.append(("machine", report.machine(comparison.machine, comparison.load_after)))
        if comparison.link:
            rows.append(("fleet", report.link(comparison.link)))
            rows += [("network", line) for line in report.network(comparison.link, comparison.machine.cores)]
    else:
        rows += [("when", str(run["began"])) for run in trace.runs[:1] if "began" in run]
        if machine := _machine(trace.about.get("machine")):
            rows.append(("machine", f"{machine}; crosshost {trace.about.get('version', '?')}"))
    if trace.events:
        rows.append(("trace", f"{len(trace.events):,} events of {counted(len(trace.runs), 'run')}"))
        if "cost" in trace.about:
            changed = "it changes the race that it shows, so no cost in this report was measured with it"
            rows.append(("its cost", f"{measure.told(trace.about['cost'])}; {changed}"))
        errors = [run for run in trace.runs if run.get("kernels", 1) > 1]
        clocks = "all processes of a run shared one kernel, and its clock"
        if errors:
            error = max(run["clock error"] for run in errors)
            clocks = f"of several hosts, brought together over Redis's, within {error / 1e3:.0f} us"
        rows.append(("clocks", clocks))
    yield (
        "conditions",
        "What it ran on",
        el("dl", [el("dt", name) + el("dd", escape(told)) for name, told in rows], class_="facts"),
    )


def _machine(found: Any) -> str:
    try:
        machine = Machine(**found)
    except TypeError:
        return json.dumps(found) if found else ""
    gil = "with the GIL" if machine.gil else "without a GIL"
    cores = f"{machine.cores} of {counted(machine.cores_total, 'core')}"
    return f"{machine.python} {gil}, {cores}, {machine.system}, load {machine.load}"
