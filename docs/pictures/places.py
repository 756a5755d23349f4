"""Draw who ran the counter in three places, and what it cost, from the evidence of one run.

producer demo counter --json | python docs/pictures/places.py

writes ``places-light.svg`` and ``places-dark.svg`` beside this file. Boxes, dots and numbers are those of the run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

INKS = {
    "light": {"ink": "#1f2328", "faint": "#59636e", "line": "#8c959f", "host": "#ddf4ff", "process": "#ffffff",
              "worker": "#0969da", "value": "#fff8c5"},
    "dark": {"ink": "#f0f6fc", "faint": "#9198a1", "line": "#656c76", "host": "#13233a", "process": "#0d1117",
             "worker": "#4493f8", "value": "#3b2e0a"},
}  # fmt: skip
WIDTH, HEIGHT, PANEL, GAP = 840, 308, 264, 24
HOSTS_TOP, HOSTS_HEIGHT, VALUE_TOP = 58, 104, 182
SHARED = {"threads": "one value, in their memory", "processes": "one value, in a page all map",
          "cluster": "one value, in Redis"}  # fmt: skip


def main() -> None:
    """Read the evidence from standard input and write both pictures."""
    evidence = json.load(sys.stdin)
    for scheme, inks in INKS.items():
        Path(__file__).with_name(f"places-{scheme}.svg").write_text(picture(evidence, inks), encoding="utf-8")


def picture(evidence: dict[str, Any], inks: dict[str, str]) -> str:
    """The whole SVG: what is run, a panel for each place, what it was measured on."""
    machine = evidence["machine"]
    measured = (f"producer demo counter: {machine['python']}, {machine['cores']} cores, load {machine['load']:.1f}; "
                "all on one machine, the hosts of the cluster too")  # fmt: skip
    parts = [
        text(0, 18, "with lock: value.value += 1", "code"),
        text(222, 18, "ten workers, fifty times each", "faint"),
    ]
    for number, run in enumerate(evidence["runs"]):
        parts += [f'<g transform="translate({number * (PANEL + GAP)} 0)">', *panel(run), "</g>"]
    parts.append(text(0, HEIGHT - 6, measured, "faint small"))
    style = (
        "text{{font:14px system-ui,sans-serif;fill:{ink}}}.b{{font-weight:600}}.faint{{fill:{faint}}}.small{{font-size:12px}}"
        ".code{{font-family:ui-monospace,monospace;font-size:13px}}rect{{stroke:{line}}}.host{{fill:{host}}}"
        ".process{{fill:{process}}}.value{{fill:{value}}}circle{{fill:{worker}}}path{{stroke:{line};fill:none}}".format(
            **inks
        )
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>The counter on threads, on processes and on a cluster</title><style>{style}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def panel(run: dict[str, Any]) -> Iterator[str]:
    """One place: hosts, in them processes, in them workers; the value that they share; what happened."""
    place, facts = run["place"], run["facts"]
    hosts: dict[str, Counter[int]] = {}
    for who in run["who"]:
        hosts.setdefault(who["host"], Counter())[who["pid"]] += 1
    yield text(0, 46, place, "b")
    width = (PANEL - 8 * (len(hosts) - 1)) / len(hosts)
    for number, (host, processes) in enumerate(sorted(hosts.items())):
        left = number * (width + 8)
        yield f'<path d="M{left + width / 2:.0f} {HOSTS_TOP + HOSTS_HEIGHT}V{VALUE_TOP}"/>'
        yield rectangle("host", left, HOSTS_TOP, width, HOSTS_HEIGHT)
        yield text(left + 8, HOSTS_TOP + 18, host if len(hosts) > 1 else "this host", "faint small")
        yield from boxes(list(processes.values()), left + 8, width - 16)
    yield rectangle("value", 0, VALUE_TOP, PANEL, 26)
    yield text(8, VALUE_TOP + 18, SHARED[place], "small")
    cost = _time(run["costs"]["increment, locked"])
    yield text(0, VALUE_TOP + 50, f"{cost} an increment", "b")
    yield text(0, VALUE_TOP + 70, f"lost of 500: {worst(facts, 'locked')} with the lock", "")
    without = f"{worst(facts, 'plain')} without; its window held open: {worst(facts, 'window_open')}"
    yield text(0, VALUE_TOP + 90, without, "")


def boxes(workers: list[int], left: float, width: float) -> Iterator[str]:
    """The processes of a host, each with a dot for every worker in it."""
    columns = min(5, len(workers)) if len(workers) > 4 else min(2, len(workers))
    rows = -(-len(workers) // columns)
    across, down = (width - 6 * (columns - 1)) / columns, (HOSTS_HEIGHT - 34 - 6 * (rows - 1)) / rows
    for number, dots in enumerate(workers):
        x, y = left + number % columns * (across + 6), HOSTS_TOP + 26 + number // columns * (down + 6)
        yield rectangle("process", x, y, across, down)
        step = across / (dots + 1)
        yield "".join(f'<circle cx="{x + step * (n + 1):.0f}" cy="{y + down / 2:.0f}" r="4.5"/>' for n in range(dots))


def worst(facts: dict[str, Any], way: str) -> int:
    """The most updates that a trial of a way has lost."""
    return max(map(int, facts[f"{way}: trials by updates lost"]))


def rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    """A box."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'


def text(x: float, y: float, words: str, kind: str) -> str:
    """A line of text."""
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(words)}</text>'


def _time(seconds: float) -> str:
    factor, unit = next((f, u) for f, u in ((1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")) if seconds * f >= 1)
    return f"{seconds * factor:.3g} {unit}"


if __name__ == "__main__":
    main()
