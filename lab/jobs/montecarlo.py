"""Pi by throwing darts: random numbers that do not depend on who draws them.

Workers that share one generator, or seed theirs by time or process id, give another result with every number of workers, or
the same darts twice. Here each *stream* has its own generator, seeded by the job's seed and the stream's number (hashed by
SHA-512, ``random.seed`` version 2), so the result is the same to the last digit for any number of workers.
"""

from __future__ import annotations

import math
import random
import time
from itertools import pairwise
from typing import Any

from lab.jobs.job import Arguments, BadArgument, Chunk, Job, Number, bounded

MOST_DARTS = 10_000_000
"""Darts of one stream."""

MOST_STREAMS = 1_000

PER_MESSAGE = 8
"""Streams that one Celery message carries."""

TRIAL = 200_000
"""Darts by which the speed of this machine is measured."""


def settle(arguments: dict[str, Any]) -> dict[str, Any]:
    """Darts for the seconds asked for, by the speed of this machine; a number of seconds would not give the same again."""
    if not arguments["seconds"]:
        return arguments
    times = []
    for stream in range(3):
        begun = time.perf_counter()
        throw(arguments["seed"], stream, TRIAL)
        times.append(time.perf_counter() - begun)
    return {**arguments, "darts": int(arguments["seconds"] * TRIAL / min(times)), "seconds": 0}


def split(darts: int, streams: int, seed: int, seconds: int) -> list[Chunk]:  # noqa: ARG001 - see settle
    """Streams as ``(seed, number of the stream, darts)``."""
    if darts > streams * MOST_DARTS:
        raise BadArgument(
            f"{darts} darts in {streams} streams are more than {MOST_DARTS} a stream.",
            f"Take more streams, of which there may be {MOST_STREAMS}: --streams {-(-darts // MOST_DARTS)}",
        )
    edges = [darts * i // streams for i in range(streams + 1)]
    return [(seed, i, high - low) for i, (low, high) in enumerate(pairwise(edges))]


def throw(seed: int, stream: int, darts: int) -> list[int]:
    """Darts of a stream that hit the quarter of the circle, and darts thrown.

    Raises:
        BadArgument: A number is out of bounds.
    """
    bounded("darts", darts, 0, MOST_DARTS)
    bounded("seed", seed, 0, 2**63)
    bounded("stream", stream, 0, MOST_STREAMS)
    draw = random.Random(f"{seed}/{stream}").random
    return [sum(draw() ** 2 + draw() ** 2 <= 1.0 for _ in range(darts)), darts]


def estimate(parts: list[list[int]]) -> dict[str, Any]:
    """Pi from the hits of all streams: ``hits``, ``darts``, ``pi``."""
    hits, darts = (sum(column) for column in zip(*parts, strict=True))
    return {"hits": hits, "darts": darts, "pi": 4 * hits / darts}


def show(_arguments: Arguments, result: Any) -> list[str]:
    """Pi, its error, and the error that chance lets one expect."""
    expected = 4 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / result["darts"])
    error = result["pi"] - math.pi
    return [f"pi = {result['pi']:.6f} from {result['darts']:,} darts, off by {error:+.6f} (one sigma: {expected:.6f})"]


JOB = Job(
    summary="Pi by darts, the same for any number of workers.",
    parameters=(
        Number("darts", 4_000_000, 1, MOST_STREAMS * MOST_DARTS, "Random points."),
        Number("streams", 64, 1, MOST_STREAMS, "Independent generators."),
        Number("seed", 1, 0, 2**63, "What the generators start from."),
        Number("seconds", 0, 0, 600, "As many darts as one core throws here in this time; 0: --darts says how many."),
    ),
    settle=settle,
    split=split,
    work=throw,
    merge=estimate,
    show=show,
)
