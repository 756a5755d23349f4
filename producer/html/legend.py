"""The legend, drawn by what it explains, and the shapes of the marks."""

from __future__ import annotations

from html import escape

from producer.html.charts import weaves
from producer.html.svg import el
from producer.html.timeline import shapes
from producer.trace.lanes import Slice

STATES = {
    "run": ("runs", "on its own, without a lock"),
    "hold": ("has a lock", "which nobody else wants"),
    "crowded": ("has a lock", "and somebody waits for it"),
    "wants": ("wants a lock", "and is blocked: somebody has it"),
    "waits": ("waits", "for an item, a message, an event, a barrier, a process, an answer"),
    "op": ("an operation", "of its own on a primitive; on a cluster, the way to Redis and back"),
    "idle": ("nothing", "a pool's worker without a call"),
}
MARKS = {
    "ended": "came to its end",
    "died": "died, or was not heard of again",
    "lapsed": "lost its lease: taken for dead",
    "redelivered": "a call that had begun elsewhere begins again",
    "refused": "what it wrote was refused",
    "outage": "Redis went away, or came back",
    "broken": "broken, ended, or interrupted, on purpose",
}
_PATHS = {
    "ended": "M4 2v8",
    "died": "M2 2l8 8M10 2l-8 8",
    "lapsed": "M6 1l5 5l-5 5l-5-5z",
    "redelivered": "M2 10h8L6 2z",
    "refused": "M6 1a5 5 0 1 1 0 10a5 5 0 1 1 0-10M2.5 9.5l7-7",
    "outage": "M7 0L3 7h3l-1 5l4-7H6z",
    "broken": "M6 0v12M1 3l10 6M11 3L1 9",
}


def definitions() -> str:
    """The shapes that the rest of the page draws with."""
    marks = [
        el("symbol", el("path", d=d), id=f"m-{name}", viewBox="0 0 12 12", overflow="visible")
        for name, d in _PATHS.items()
    ]
    return el("svg", el("defs", marks, weaves()), width=0, height=0, class_="shapes", aria_hidden="true")


def made() -> str:
    """The legend."""
    states = [
        el("li", el("svg", shapes([Slice(0, 34_000, state)], 0), viewBox="0 0 34 18", width=34, height=18,
                    aria_hidden="true"),
           el("span", el("b", escape(name)), f" {escape(more)}"))
        for state, (name, more) in STATES.items()
    ]  # fmt: skip
    marks = [
        el("li", el("svg", el("g", el("use", href=f"#m-{name}", x=3, y=3, width=12, height=12), class_=f"mark {name}"),
                    viewBox="0 0 18 18", width=18, height=18, aria_hidden="true"), el("span", escape(told)))
        for name, told in MARKS.items()
    ]  # fmt: skip
    how = (
        "One row is one thread; under them, one row is one lock, with the name of who has it. Point at anything to read what "
        "it is; drag to look closer, or click into a row and use the keys ← → ↑ ↓ + - 0. Lines lead from who sent to who "
        "received: the dot is where it arrived."
    )
    summary = el("summary", "How to read this")
    return el(
        "details",
        summary,
        el("p", how),
        el("ul", states, class_="states"),
        el("ul", marks, class_="marks"),
        class_="legend",
        open="",
    )
