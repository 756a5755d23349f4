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

MOST_ITEMS = 20_000


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
        once, used = _timed(function, items)
        n = max(8, min(MOST_ITEMS, int(SERIAL_SECONDS / max(once / len(items), 1e-7))))
        chosen = list(itertools.islice(itertools.cycle(items), n))
        rounds = [_timed(function, chosen) for _ in range(3)]
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
    with pool_of(ctx, workers) as pool:
        pool.map(function, items[: 2 * workers], 1)  # every worker has imported it

        def ratio() -> float:
            here = seconds(lambda: [function(item) for item in items])
            return here / seconds(lambda: pool.map(function, items, chunk))

        measured = repeated(ratio)
    return Trial(costs.place, workers, chunk, predict(costs, work, workers, chunk), measured)
