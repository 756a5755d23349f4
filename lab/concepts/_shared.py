"""What the concept programs share and learners may skip: the command line, patience, and the number of cores."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import PLACES, get_context
from lab.errors import LabError
from lab.evidence import Result

PATIENCE = 60.0
"""Seconds after which a program gives up on a peer. Nothing here should come near it; nothing waits for ever."""


def start(ctx: Any, target: Callable[..., object], arguments: Iterable[Sequence[Any]]) -> list[Any]:
    """Start one child per tuple of arguments; as daemons, so that none outlives a program that failed."""
    children = [ctx.Process(target=target, args=tuple(args), daemon=True) for args in arguments]
    for child in children:
        child.start()
    return children


def join(children: Iterable[Any]) -> list[int | None]:
    """Wait for the children; their exit codes, None for one that is still running."""
    codes = []
    for child in children:
        child.join(PATIENCE)
        codes.append(child.exitcode)
    return codes


def take(queue: Any, count: int) -> list[Any]:
    """The next ``count`` items of a queue."""
    return [queue.get(timeout=PATIENCE) for _ in range(count)]


def median(values: Iterable[float]) -> float:
    """The middle of the values: what a typical one cost, whatever the worst did."""
    return statistics.median(values)


def cores() -> int:
    """Processor cores that this process may use: its affinity, cut by the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max":
            count = min(count, max(1, int(limit) // int(period)))
    return count


def has_gil() -> bool:
    """Whether this interpreter has a GIL, and it is on: always so before Python 3.13."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())


def freeze(seconds: float) -> None:
    """Stop for a while without knowing it; a thread cannot be stopped by itself, so it sleeps.

    On the cluster the lease of a process that is stopped is not renewed, as if its host had been frozen.
    """
    if multiprocessing.parent_process() is None:
        time.sleep(seconds)
        return
    thaw = f"kill -STOP {os.getpid()}; sleep {seconds}; kill -CONT {os.getpid()}; echo awake"
    helper = subprocess.Popen(["/bin/sh", "-c", thaw], stdout=subprocess.PIPE, start_new_session=True)
    assert helper.stdout
    helper.stdout.readline()


def until(condition: Callable[[], bool]) -> bool:
    """Look again and again, for want of anybody who could tell us; whether the condition came true in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def write_past_the_fence(value: Any, number: int) -> None:
    """Write a raw value without asking whether this process is still among the living; where memory is shared, just write."""
    memory = getattr(value, "_memory", None)
    if memory is None:
        value.value = number
    else:
        memory.run.store.call("SETRANGE", memory.key, 0, value.encode(number))


def borne_out(result: Result, why: Mapping[str, str]) -> Mapping[str, str]:
    """The reasons for what a concept shows; if this run has not shown it, that instead."""
    return why if result.ok else dict.fromkeys(why, "This run has not shown what it should have: some claims failed.")


def seconds_text(seconds: float) -> str:
    """A duration with a unit that suits it: ``120 ns``, ``3.4 us``, ``1.20 s``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def text(result: Result) -> str:
    """The result for a terminal."""
    lines = [f"{result.concept} on {result.place}, {seconds_text(result.seconds)}", "", result.happened, result.why, ""]
    lines += [f"  {name}: {json.dumps(fact)}" for name, fact in result.facts.items()]
    lines += [f"  {name}: {seconds_text(cost)}" for name, cost in result.costs.items()]
    lines += [f"  ran on {len(result.who)}: {', '.join(map(str, result.who))}", ""]
    lines += [f"  {'held  ' if check.held else 'FAILED'}  {check.claim}" for check in result.checks]
    return "\n".join(lines)


def main(run: Callable[..., Result]) -> int:
    """The command line of one concept: run it in a place and print its result.

    Returns:
        0 if every claim held, 1 if one did not, else the exit code of the error that ended the program.
    """
    import click  # here, not above: spawned children import this module too and have no command line

    places = [*PLACES, "interpreters"]  # threads of another Python are for producer demo

    @click.command(help=(run.__doc__ or "").partition("\n")[0])
    @click.option("--on", type=click.Choice(places), default="threads", show_default=True, help="The place to run in.")
    def command(on: str) -> None:
        ctx: Any = None
        try:
            ctx = get_context(on)
            result = run(ctx)
            click.echo(text(result))
            code = 0 if result.ok else 1
        except LabError as exc:
            click.echo(f"{exc.message}\n{exc.hint}".rstrip(), err=True)
            code = int(exc.exit_code)
        finally:
            if hasattr(ctx, "close"):
                ctx.close()
        raise SystemExit(code)

    try:
        command()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 0
    return 0
