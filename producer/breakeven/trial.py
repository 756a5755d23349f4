"""A function, run here and in each place: what the model says, beside what happened."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from producer.breakeven.model import Costs, Spread, Work, predict
from producer.breakeven.probe import pool_of, repeated, seconds

SERIAL_SECONDS = 0.12
"""What one round of the function should take in this process."""

FEWEST_ITEMS, MOST_ITEMS = 8, 20_000

EVEN_ITEMS, EVEN_SECONDS = 32, 0.02
"""Of items that are not longer than that, so many at least: with fewer, eight workers do not end together."""

LONG_SECONDS = 1.0
"""A round that takes longer than this is run once."""


class FunctionFailed(LabError, RuntimeError):
    """The function raised."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Trial:
    """A function in one place.

    Attributes:
        place: Where.
        workers: On how many workers.
        chunk: With how many items to a message.
        predicted: Speed-up over this process by the model.
        measured: The same, measured in turn with this process.
    """

    place: str
    workers: int
    chunk: int
    predicted: Spread
    measured: Spread


def serial(function: Any, items: Sequence[Any]) -> tuple[Work, list[Any]]:
    """Measure a function in this process; as many of the items, over again if need be, as fill a tenth of a second.

    Returns:
        What was measured, and the items of one round.

    Raises:
        FunctionFailed: It raised.
    """
    try:
        each = _sample(function, items)
        n = max(EVEN_ITEMS if each < EVEN_SECONDS else FEWEST_ITEMS, min(MOST_ITEMS, int(SERIAL_SECONDS / each)))
        chosen = list(itertools.islice(itertools.cycle(items), n))
        rounds = [_timed(function, chosen)]
        while len(rounds) < 3 and rounds[0][0] < LONG_SECONDS:
            rounds.append(_timed(function, chosen))
        result = function(chosen[0])
    except Exception as exc:
        raise FunctionFailed(
            f"{function} failed: {type(exc).__name__}: {exc}",
            "It is called with the numbers 0, 1, 2 ...; to give it items of its own: --input FILE",
        ) from exc
    wall, used = sum(wall for wall, _ in rounds), sum(used for _, used in rounds)
    computing = max(0.01, min(1.0, used / wall))
    size = (len(pickle.dumps(chosen[0])) + _size(result)) / 1e6
    return Work(n, Spread.of([wall / n for wall, _ in rounds]), computing, size), chosen


def _sample(function: Any, items: Sequence[Any]) -> float:
    """Seconds of an item, by as many as fit into a twentieth of a second."""
    begun, done = time.perf_counter(), 0
    for item in items:
        function(item)
        done += 1
        if time.perf_counter() - begun > 0.05:
            break
    return max((time.perf_counter() - begun) / done, 1e-7)


def _timed(function: Any, items: Sequence[Any]) -> tuple[float, float]:
    wall, used = time.perf_counter(), time.process_time() + _kept_waiting()
    for item in items:
        function(item)
    return time.perf_counter() - wall, time.process_time() + _kept_waiting() - used


def _kept_waiting() -> float:
    """Seconds for which this thread could have run, but another had the core: on a busy machine, no waiting of its own."""
    stat = Path("/proc/thread-self/schedstat")
    return int(stat.read_text().split()[1]) / 1e9 if stat.is_file() else 0.0


def _size(result: Any) -> int:
    try:
        return len(pickle.dumps(result))
    except Exception as exc:
        raise FunctionFailed(
            f"The result of the function cannot be sent between processes: {exc}",
            "Return plain data: numbers, text, lists.",
        ) from exc


def run(ctx: Any, costs: Costs, function: Any, work: Work, items: list[Any], workers: int) -> Trial:
    """Run a function on the workers of a place, in turn with this process."""
    chunk = max(1, len(items) // (4 * workers))  # as Pool.map does

    def ratio() -> float:
        here = seconds(lambda: [function(item) for item in items])
        return here / seconds(lambda: pool.map(function, items, chunk))

    try:
        with pool_of(ctx, workers) as pool:
            pool.map(function, items[:workers], 1)  # so that the workers have imported it
            long = work.items * work.seconds.median > LONG_SECONDS
            measured = Spread.of([ratio()]) if long else repeated(ratio)
    except LabError:
        raise
    except Exception as exc:
        hint = "It did not in this process; does it use what only this process, or this host, has?"
        raise FunctionFailed(f"{function} failed on {costs.place}: {type(exc).__name__}: {exc}", hint) from exc
    return Trial(costs.place, workers, chunk, predict(costs, work, workers, chunk), measured)
