"""The evidence as text: readable on 80 columns, with or without colours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from producer.catalogue import idea
from producer.output import counted, duration, plain
from producer.places import left_out

if TYPE_CHECKING:
    from lab.evidence import Result
    from producer.comparison import Comparison
    from producer.machine import Machine
    from producer.runs import Link, Run

GOOD, BAD, DIM = "green", "bold red", "dim"
FACT_LENGTH = 240
ABREAST = 3
"""Places that have room beside each other on 80 columns."""


def title(text: str) -> RenderableType:
    """A heading across the page."""
    return Rule(Text(text, "bold"), align="left", style=DIM)


def comparison(found: Comparison) -> list[RenderableType]:
    """The whole report: a block per concept, then everything at a glance."""
    parts: list[RenderableType] = []
    for concept in found.concepts:
        runs = [run for run in found.runs if run.result.concept == concept]
        parts += [title(concept), Text(idea(concept)), "", _happenings(runs), *_costs(runs)]
        parts += [*(Text(line, DIM) for line in left_out(concept, found.places)), ""]
    parts += [title("At a glance"), _summary(found), ""]
    return [*parts, _conditions(found), "", *_verdict(found)]


def evidence(run: Run) -> list[RenderableType]:
    """One run in full: what happened, every claim, every fact, every cost."""
    parts: list[RenderableType] = [_happenings([run])]
    if run.traceback:
        parts.append(Padding(Text(run.traceback.rstrip(), DIM), (1, 0, 0, 2)))
    for name, rows in (("checks", _checks(run)), ("facts", _facts(run)), ("cost of one", _prices(run))):
        if rows:
            parts += ["", Text(name, "bold"), Padding(_grid(rows), (0, 0, 0, 2))]
    return [*parts, ""]


def _happenings(runs: list[Run]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name in ("place", "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("seconds", no_wrap=True, justify="right")
    table.add_column("story", ratio=1)
    for run in runs:
        table.add_row(Text(run.result.place, "bold"), _word(run), duration(run.result.seconds), _story(run))
    return table


def _word(run: Run) -> Text:
    return Text("ok", GOOD) if run.ok else Text("FAILED", BAD)


def _story(run: Run) -> Text:
    lines = [Text(line, BAD) for line in (run.failures() if not run.ok else [])]
    lines += [Text(run.result.happened), Text(run.result.why, DIM), Text(crew(run.result), DIM)]
    return Text("\n").join(line for line in lines if line)


def crew(result: Result) -> str:
    """Who took part, in words: ``by 4 threads in 2 processes on 1 host``."""
    threads = set(result.who)
    processes = {(one.host, one.pid) for one in threads}
    hosts = {one.host for one in threads}
    if not threads:
        return ""
    words = f"{counted(len(processes), 'process')} on {counted(len(hosts), 'host')}"
    if result.place == "threads" or len(threads) > len(processes):
        words = f"{counted(len(threads), 'thread')} in {words}"
    return f"by {words}"


def _costs(runs: list[Run]) -> list[RenderableType]:
    """Operation by place, each with its ratio to the cheapest place."""
    operations = list(dict.fromkeys(name for run in runs for name in run.result.costs))
    if not operations:
        return []
    if len(runs) > ABREAST:
        return ["", _costs_below(runs, operations)]
    table = Table.grid(padding=(0, 3))
    table.add_column(ratio=1)
    for _ in runs:
        table.add_column(no_wrap=True, justify="right")
    table.add_row(Text("cost of one", DIM), *(Text(run.result.place, DIM) for run in runs))
    for name in operations:
        prices = [run.result.costs.get(name) for run in runs]
        table.add_row(name, *_compared(prices))
    return ["", table]


def _costs_below(runs: list[Run], operations: list[str]) -> Table:
    """The same with the places one below the other, as more of them have no room beside each other."""
    table = Table.grid(padding=(0, 3))
    table.add_row(Text("cost of one", DIM))
    for name in operations:
        prices = [run.result.costs.get(name) for run in runs]
        for number, (run, price) in enumerate(zip(runs, _compared(prices), strict=True)):
            table.add_row("" if number else name, Text(run.result.place, DIM), price)
    return table


def _compared(prices: list[float | None]) -> list[Text]:
    known = [price for price in prices if price is not None and price > 0]
    return [_price(price, min(known) if len(known) > 1 else 0.0) for price in prices]


def _price(price: float | None, cheapest: float) -> Text:
    if price is None:
        return Text("-", DIM)
    text = Text(duration(price))
    if cheapest and price > 0:
        text.append(f" {times(price / cheapest):>6}", GOOD if price == cheapest else DIM)
    return text


def times(ratio: float) -> str:
    """A ratio to three digits at the most: ``x1``, ``x4.5``, ``x170``."""
    return f"x{ratio:.1f}".removesuffix(".0") if ratio < 10 else f"x{ratio:.0f}"


def _summary(found: Comparison) -> Table:
    table = Table.grid(padding=(0, 3 if len(found.places) <= ABREAST else 2))
    table.add_row("", *(Text(place, "bold") for place in found.places))
    cells = {(run.result.concept, run.result.place): run for run in found.runs}
    for concept in found.concepts:
        cell = _cell if len(found.places) <= ABREAST else _short_cell
        table.add_row(concept, *(cell(cells.get((concept, place))) for place in found.places))
    return table


def _cell(run: Run | None) -> Text:
    if run is None:
        return Text("-", DIM)
    return Text.assemble(_word(run), " " * (7 - len(_word(run))), f"{duration(run.result.seconds):>7}")


def _short_cell(run: Run | None) -> Text:
    """The same in the width of a place's name."""
    return (
        Text("-", DIM) if run is None else Text(duration(run.result.seconds), GOOD) if run.ok else Text("FAILED", BAD)
    )


def _conditions(found: Comparison) -> Table:
    rows = [
        ("when", f"{found.started}, for {duration(found.seconds)}; crosshost {found.version}"),
        ("machine", machine(found.machine, found.load_after)),
    ]
    rows += [("not here", f"{place}: {why}") for place, why in found.missing.items()]
    if found.link:
        rows.append(("fleet", link(found.link)))
        rows += [("network", text) for text in network(found.link, found.machine.cores)]
    return _grid(rows)


def machine(here: Machine, load_after: float) -> str:
    """The machine in a line."""
    gil = "with the GIL" if here.gil else "without a GIL"
    cores = f"{here.cores} of {counted(here.cores_total, 'core')}"
    return f"{here.python} {gil}, {cores}, {here.system}, load {here.load} before, {load_after} after"


def link(found: Link) -> str:
    """The fleet and the way to it in a line."""
    slots = sum(host["slots"] for host in found.hosts)
    kind = "embedded, " if found.embedded else ""
    fleet = f"{kind}{counted(len(found.hosts), 'host')} with {counted(slots, 'slot')}"
    ping = f"a PING and its answer take {duration(found.round_trip)} (median)"
    if found.rtt:
        ping += f", {duration(found.round_trip_before)} without the {duration(found.rtt)} of --rtt"
    return f"{fleet}; {found.transport}, {ping}"


def network(found: Link, cores: int) -> list[str]:
    """What the fleet shares with this program and a network would part, in a line; nothing if it shares nothing."""
    if not found.hosts_here:
        return []
    all_here = found.hosts_here == len(found.hosts)
    hosts = "all" if all_here else f"{found.hosts_here} of {len(found.hosts)}"
    shared = f"{hosts} hosts share one kernel and {counted(cores, 'core')} with this program"
    if found.rtt:
        return [f"{shared}; each connection to Redis has a distance added, so this shows round trips, not bandwidth"]
    return [f"{shared}: no network is between them. With one of 2 ms: --rtt 2ms"] if all_here else [shared]


def distance(found: Link) -> list[RenderableType]:
    """The fleet and the network that was added, for a single program."""
    return [_grid([("fleet", link(found))])]


def _verdict(found: Comparison) -> list[RenderableType]:
    failed = [run for run in found.runs if not run.ok]
    if not failed:
        claims = sum(len(run.result.checks) for run in found.runs)
        return [Text(f"All {claims} claims of {counted(len(found.runs), 'run')} held.", GOOD)]
    lines: list[RenderableType] = [Text(f"{len(failed)} of {counted(len(found.runs), 'run')} failed:", BAD)]
    lines += [Text(f"  {run.name}: {failure}") for run in failed for failure in run.failures()]
    first = failed[0].result
    return [*lines, f"To see one in full: producer demo {first.concept} --on {first.place}"]


def _checks(run: Run) -> list[tuple[str | Text, str]]:
    words = {True: Text("held", GOOD), False: Text("NOT SO", BAD)}
    return [(words[check.held], check.claim) for check in run.result.checks]


def _facts(run: Run) -> list[tuple[str, str]]:
    return [(name, _short(value)) for name, value in run.result.facts.items()]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return text if len(text) <= FACT_LENGTH else f"{text[:FACT_LENGTH]} ... (all of it with --json)"


def _prices(run: Run) -> list[tuple[str, str]]:
    return [(name, duration(price)) for name, price in run.result.costs.items()]


def _grid(rows: Any) -> Table:
    table = Table.grid(padding=(0, 2))
    for first, second in rows:
        table.add_row(Text(first) if isinstance(first, str) else first, Text(second))
    return table
