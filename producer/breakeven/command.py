"""``producer breakeven``: measure the places, work out where they win, and try it."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import Any

import lab
from lab.errors import ExitCode, LabError
from lab.mapping.chunk import Job
from lab.program.target import Target
from producer import output, runs
from producer.breakeven import probe, trial
from producer.breakeven.found import Found
from producer.breakeven.model import Costs, least_work, shortest_item, smallest_chunk
from producer.capture import Relay
from producer.machine import Machine
from producer.mapping.reader import Reader, Source
from producer.mapping.sink import prints_to_stderr
from producer.progress import Progress
from producer.target import resolve

EXAMPLE = "lab.work:example"
FIRST_ITEMS = 1_000


class NoItems(LabError, ValueError):
    """The input has no item that can be read."""

    exit_code = ExitCode.USAGE


def run(functions: tuple[str, ...], places: list[str], input: str | None, as_json: bool) -> None:
    """Measure and report.

    Args:
        functions: Names of functions; the built-in example when there is none.
        places: Where to measure.
        input: A file with items for the functions; None for the numbers 0, 1, 2 ...
        as_json: Whether to write JSON in place of the report.
    """
    from producer.breakeven import report

    with Relay() as relay, prints_to_stderr():
        progress = Progress(relay.real)
        targets = [resolve(name) for name in functions or (EXAMPLE,)]
        items = _items(input, targets[0])
        with runs.opened(places, progress) as contexts:
            found = _measure(contexts, targets, items, progress)
    if as_json:
        output.write_json(to_json(found))
    else:
        output.write_rich(report.report(found))


def _items(name: str | None, target: Target) -> list[Any]:
    """The items that the functions are tried with: those of the input that can be read, at most ``FIRST_ITEMS``."""
    if name is None:
        return list(range(FIRST_ITEMS))
    source = Source.open(name)
    format = source.guess_format()
    reader = Reader(source.fd, format)
    job = Job(target, format, reader.header)
    items = []
    for item in itertools.islice(reader, FIRST_ITEMS):
        try:
            items.append(job.parse(item.payload))
        except ValueError:
            continue
    if not items:
        raise NoItems(f"There is no item in {name!r} that can be read as {format}.", "Try: producer map --help")
    return items


def _measure(contexts: dict[str, Any], targets: list[Target], items: list[Any], progress: Progress) -> Found:
    found = Found(Machine.here())
    rounds = {}
    for target in targets:
        progress.say(f"here: {target} ...")
        found.works[str(target)], rounds[target] = trial.serial(target.load(), items)
    for place, ctx in contexts.items():
        free = max(1, sum(host.slots - host.busy for host in ctx.fleet())) if place == "cluster" else max(probe.WORKERS)
        if free < min(probe.WORKERS):
            raise LabError(f"The fleet has {free} free slot.", "Two are needed: worker --slots 4, or CROSSHOST_SLOTS=4")
        costs, cores = probe.measure(ctx, free, progress.say)
        shared_gil = place == "threads" and found.machine.gil
        costs = replace(costs, cores=1 if shared_gil else sum(cores.values()))
        found.costs[place], found.machines[place], found.cores[place] = costs, len(cores), sum(cores.values())
        for target in targets:
            progress.say(f"{place}: {target} ...")
            for workers in costs.power:
                one = trial.run(ctx, costs, target, found.works[str(target)], rounds[target], workers)
                found.trials.setdefault(str(target), []).append(one)
    progress.clear()
    return found


def to_json(found: Found) -> dict[str, Any]:
    """Everything measured, and what follows from it, in plain JSON types."""
    return {
        "version": lab.__version__,
        "machine": vars(found.machine),
        "places": {
            place: {
                "cores": found.cores[place],
                "machines": found.machines[place],
                "costs": asdict(costs),
                "break_even": {str(workers): break_even(costs, workers) for workers in costs.power},
            }
            for place, costs in found.costs.items()
        },
        "functions": {
            name: {"work": asdict(work), "trials": [asdict(each) for each in found.trials[name]]}
            for name, work in found.works.items()
        },
    }


def break_even(costs: Costs, workers: int) -> dict[str, Any]:
    """Where workers of a place begin to win; None where they never do."""
    return {
        "speed_up": asdict(costs.speed_up(workers)),
        "computing_item": shortest_item(costs, workers, 1),
        "computing_item_in_chunks": shortest_item(costs, workers, None),
        "waiting_item": shortest_item(costs, workers, 1, computing=0.0),
        "waiting_item_in_chunks": shortest_item(costs, workers, None, computing=0.0),
        "chunk_of_100_us_items": smallest_chunk(costs, workers, 100e-6),
        "work_that_pays_for_the_start": least_work(costs, workers),
    }
