"""The tables of ``producer breakeven``, and the sentence under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from producer.breakeven.found import Found
from producer.breakeven.model import Costs, Spread, gain, least_work, shortest_item, smallest_chunk
from producer.breakeven.trial import Trial
from producer.output import UNITS, duration

if TYPE_CHECKING:
    from rich.console import RenderableType


SHORT = 100e-6
"""Seconds of the item for which the table has the smallest chunk."""

DISAGREE = 1.25
"""How far apart the quartiles of prediction and measurement must be for the report to doubt them."""

ROWS = (
    ("a call", "call"),
    ("item, singly", "single"),
    ("item, in chunks", "item"),
    ("megabyte", "megabyte"),
    ("lock", "lock"),
    ("queue message", "queue"),
)


def report(found: Found) -> list[RenderableType]:
    """The whole report."""
    machine = found.machine
    head = f"{machine.python}, {machine.cores} cores, load {machine.load}, {machine.system}\n"
    head += "Medians of five; in brackets the quartiles.\n"
    if machine.load > machine.cores / 2:
        head += "This machine is busy: what follows holds for it as it is now, and will be better when it is not.\n"
    parts: list[RenderableType] = [Text(head), _costs(found), _break_even(found)]
    parts += [_trials(name, found) for name in found.trials]
    parts.append(Text("\n".join(sentences(found))))
    return parts


def _costs(found: Found) -> Table:
    table = _table("What it costs", *found.costs)
    for label, name in ROWS:
        table.add_row(label, *(_spread(getattr(costs, name)) for costs in found.costs.values()))
    for workers in _all_workers(found):
        table.add_row(f"start of {workers}", *(_spread(costs.start.get(workers)) for costs in found.costs.values()))
    for workers in _all_workers(found):
        label = f"{workers} compute"
        table.add_row(label, *(_times(costs.power.get(workers)) for costs in found.costs.values()))
    return table


def _break_even(found: Found) -> Table:
    columns = ("computing,\nsingly", "computing,\nin chunks", f"chunk for\n{duration(SHORT)} items", "waiting,\nsingly",
               "all, to pay\nfor the start")  # fmt: skip
    table = _table("How long an item must be for workers to win", *columns)
    for place, costs in found.costs.items():
        for workers in costs.power:
            chunk = smallest_chunk(costs, workers, SHORT)
            table.add_row(
                _workers(workers, place),
                _least(shortest_item(costs, workers, 1)),
                _least(shortest_item(costs, workers, None)),
                f"{chunk:,}" if chunk else "never",
                _least(shortest_item(costs, workers, 1, computing=0.0)),
                _least(least_work(costs, workers)),
            )
    return table


def _trials(name: str, found: Found) -> Table:
    work = found.works[name]
    title = f"{name}: {work.items:,} items of {duration(work.seconds.median)}, computing {work.computing:.0%} of it"
    table = _table(title, "items to\na message", "speed-up,\npredicted", "speed-up,\nmeasured")
    for trial in found.trials[name]:
        table.add_row(
            _workers(trial.workers, trial.place), str(trial.chunk), _times(trial.predicted), _times(trial.measured)
        )
    return table


def sentences(found: Found) -> list[str]:
    """The answer in words: one sentence a place, and what the cores allow."""
    told = [_sentence(costs) for costs in found.costs.values()]
    if "cluster" in found.costs:
        cores, machines = found.cores["cluster"], found.machines["cluster"]
        text = f"The fleet's hosts are {machines} machine{'s' * (machines > 1)} with {cores} cores"
        local = found.cores.get("processes", found.machine.cores)
        text += (
            f", no more than this one's {local}: for computing it cannot beat processes here."
            if cores <= local
            else f"; this one has {local}."
        )
        told.append(text)
    for name, trials in found.trials.items():
        told.append(_advice(name, trials))
    return told


def _sentence(costs: Costs) -> str:
    """The number of workers that computes fastest, and from which item on they win."""
    best = max(costs.power, key=lambda workers: costs.speed_up(workers).median)
    power = costs.speed_up(best)
    waiting = shortest_item(costs, best, 1, computing=0.0)
    wait = f"for items that wait, from {_least(waiting)} an item"
    if gain(power) is None:
        return f"{costs.place}: never worth it for computing (speed-up {_times(power)} with {best} workers); {wait}."
    single, chunked = shortest_item(costs, best, 1), shortest_item(costs, best, None)
    return (
        f"{costs.place}: worth it for computing from {_least(single)} an item, or {_least(chunked)} in chunks, once all items"
        f" together take {_least(least_work(costs, best))}; expect {_times(power)} with {best} workers; {wait}."
    )


def _advice(name: str, trials: list[Trial]) -> str:
    best = max(trials, key=lambda trial: trial.measured.median)
    if gain(best.measured) is None:
        return f"{name}: keep it in one process; the fastest way tried was {_times(best.measured)} as fast."
    where, said, was = _workers(best.workers, best.place), best.predicted, best.measured
    apart = was.low > DISAGREE * said.high or said.low > DISAGREE * was.high
    doubt = " The two disagree: measure again when the machine is quiet." if apart else ""
    return f"{name}: fastest with {where}, {_times(was)} as fast as here (predicted {_times(said)}).{doubt}"


def _all_workers(found: Found) -> list[int]:
    return sorted({workers for costs in found.costs.values() for workers in costs.power})


def _workers(workers: int, place: str) -> str:
    return f"{workers} on cluster" if place == "cluster" else f"{workers} {place}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _least(seconds: float | None) -> str:
    return "never" if seconds is None else duration(seconds)


def _spread(spread: Spread | None) -> str:
    """``448 (255-958) us``: all three in the unit of the median."""
    if spread is None:
        return ""
    number, unit = duration(spread.median).split()
    size = dict(UNITS)[unit]
    return f"{number} ({_brief(spread.low / size)}-{_brief(spread.high / size)}) {unit}"


def _brief(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _times(spread: Spread | None) -> str:
    return f"x{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})" if spread else ""
