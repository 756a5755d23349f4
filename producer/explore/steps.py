"""What an exploration found as a page: what came of it, and one order that is gone through step by step."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from lab.explored.naming import text_of
from lab.explored.search import Exploration, Run
from producer.explore import report
from producer.explore.grid import Row, once, rows_of, workers_of
from producer.explore.program import Program
from producer.html.page import Section, framed
from producer.html.svg import el

MOST_COLUMNS = 6
"""With more workers their names stand in the cell, in one column."""

MOST_ROWS = 1000

HOW = "One step after the other: whose it is, its line, and what it does."


def write(path: str, found: Exploration, program: Program, shown: Run) -> None:
    """Write the page.

    Args:
        path: The file.
        found: What was explored.
        program: Of what.
        shown: The order that is gone through.
    """
    words = report.title(shown) if found.wrong else report.all_well(found)
    verdict = el(
        "p", f"{'✗' if found.wrong else '✓'} {escape(words)}", class_=f"verdict {'bad' if found.wrong else 'good'}"
    )
    Path(path).write_text(
        framed(f"{program.name}: in every order", verdict, _sections(found, program, shown), "steps.js"), "utf-8"
    )


def _sections(found: Exploration, program: Program, shown: Run) -> Iterator[Section]:
    yield "steps", "Step by step", _steps(shown, program, HOW if found.wrong else report.title(shown, False))
    if shown.holds:
        told = "\n".join(report.circle(shown.holds, program)).replace("\n    and", ", and").splitlines()
        yield "circle", "Who waits for whom", el("ul", [el("li", escape(line.strip())) for line in told])
    yield "outcomes", "What came of all of them", _outcomes(found)
    lines = [report.explored(found), report.settings(found), *program.notes]
    yield "explored", "What was explored", "".join(el("p", escape(line)) for line in lines)


def _outcomes(found: Exploration) -> str:
    of = found.orders if found.orders is not None and found.bound is None else found.runs
    known = report.counts(found)
    rows = []
    for outcome, number in known[: report.MOST_SHOWN]:
        note = report.remark(outcome, found)
        words = el("strong", escape(report.KINDS[outcome.kind]), class_="bad" if outcome in found.wrong else None)
        told = [words, " ", escape(outcome.text), el("small", f" ← {escape(note)}") if note else ""]
        rows.append(el("tr", el("td", f"{number:,} of {of:,}"), el("td", f"{100 * number / of:.1f}%"), el("td", told)))
    head = el(
        "tr",
        [el("th", name, scope="col") for name in ("interleavings" if of == found.orders else "runs", "share", "end")],
    )
    more = (
        el("p", f"... and {len(known) - len(rows)} more; all of them: --json", class_="note")
        if len(known) > len(rows)
        else ""
    )
    return (
        el("div", el("table", el("thead", head), el("tbody", rows), class_="numbers outcomes"), class_="scroll") + more
    )


def _steps(shown: Run, program: Program, caption: str) -> str:
    rows, left_out = once(rows_of(shown), shown.cycle, MOST_ROWS)
    if not rows:
        return el("p", "It has no step in which the order matters.")
    workers = workers_of(rows)
    columns = ["worker"] if len(workers) > MOST_COLUMNS else workers
    shared: dict[str, str] = {}
    body = []
    for row in rows:
        label, _, value = row.state.partition(" = ")
        new = bool(label) and shared.get(label) != value
        shared |= {label: value} if label else {}
        body.append(_row(row, columns, shared, label if new else "", program))
    head = [el("th", el("span", "step"), scope="col"), *(el("th", escape(name), scope="col") for name in columns)]
    head.append(el("th", "shared, afterwards", scope="col", class_="shared"))
    table = el("table", el("caption", escape(caption)), el("thead", el("tr", head)), el("tbody", body))
    frame = el(
        "div",
        table,
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label="The steps. Left and right: one back, one on.",
    )
    note = el("p", escape(left_out), class_="note") if left_out else ""
    return el("div", _switches(), frame, note, _legend(rows), class_="steps")


def _switches() -> str:
    named = {"first": "« first", "back": "◀ back", "next": "next ▶", "last": "last »"}
    buttons = [el("button", words, type="button", data_go=name) for name, words in named.items()]
    keys = "or the keys ← → Home End, in the table"
    bar = el("div", el("span", buttons), el("span", class_="count"), el("span", keys), class_="switches")
    return bar.replace(
        '<div class="switches"', '<div hidden class="switches"', 1
    )  # until there is a script to serve it


def _row(row: Row, columns: list[str], shared: dict[str, str], new: str, program: Program) -> str:
    file = program.short(row.where[0])
    line = f"{file + ':' if file else ''}{row.where[1]}"
    number = str(row.number) if row.number else "-"
    kind = row.mark.partition(" ")[0].rstrip(":")
    act = [
        el("strong", escape(row.worker)) if len(columns) == 1 else "",
        el("code", el("b", escape(line)), " ", escape(text_of(row.where))),
        el("span", escape(row.does), class_="does"),
        el("span", escape(_mark(row)), class_=f"flag {kind}") if row.mark else "",
    ]
    at = 0 if len(columns) == 1 else columns.index(row.worker)
    cells = [el("td", el("div", act), class_="act") if index == at else el("td") for index in range(len(columns))]
    values = [
        el("span", escape(f"{name} = {value}"), class_="new" if name == new else None) for name, value in shared.items()
    ]
    told = f"Step {number}: {row.worker}, line {line}: {row.does}."
    told += f" {_mark(row)}." if row.mark else ""
    told += f" Now {row.state}." if row.state else ""
    return el("tr", el("th", el("span", number), scope="row"), cells, el("td", values, class_="shared"), data_told=told)


def _mark(row: Row) -> str:
    return row.mark.replace("stale: ", "stale: step ").replace("destroys ", "destroys step ")


def _legend(rows: list[Row]) -> str:
    said = {
        "stale": "what was read here is out of date when its worker writes; the number is the step that changed it",
        "destroys": "the write that undoes what another one did meanwhile, in the step of that number",
        "waits": "this never comes",
    }
    there = {row.mark.partition(" ")[0].rstrip(":") for row in rows}
    items = [
        el("li", el("span", el("span", name, class_=f"flag {name}")), el("span", words))
        for name, words in said.items()
        if name in there
    ]
    return el("div", el("ul", items), class_="legend") if items else ""
