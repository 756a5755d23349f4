"""What tracing costs, measured where it is done: it changes the race that it shows, so a trace says by how much."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lab.trace.clock import now
from lab.trace.pool import Call
from lab.trace.recorder import SOON, Recorder, Where

TIMES, ROUNDS = 2_000, 5
LIMITS = {"event ns": 2_000, "call of 1 ms": 0.05}
"""What an event, and both events of a call, may cost."""


def cost(where: Where) -> dict[str, float]:
    """Nanoseconds an event, handing it in included, and the share that tracing adds to a call of 1 ms.

    Args:
        where: A place to hand in of the kind that the trace will use; what lies there is of no use.
    """
    recorder = Recorder()
    event = min(_round(recorder, where) for _ in range(ROUNDS))
    recorder.begin(where)
    haste = min(_haste(recorder) for _ in range(ROUNDS))
    recorder.close()
    call = min(_each(Call(_nothing, "pool"), 0) for _ in range(ROUNDS)) - min(_each(_nothing) for _ in range(ROUNDS))
    return {"event ns": round(event), "call of 1 ms": round((call + 2 * event) / 1e6 + haste / max(SOON, 1e6), 5)}


def _round(recorder: Recorder, where: Where) -> float:
    """Processor time of this process, so that what its thread does is counted, and what other programs do is not."""
    recorder.begin(where)
    begun = time.process_time_ns()
    for _ in range(TIMES):
        recorder.note(now(), "got", "Lock 1")
    recorder.close()
    return (time.process_time_ns() - begun) / TIMES


def _haste(recorder: Recorder) -> float:
    time.sleep(2 * SOON / 1e9)  # it is done at most so often
    begun = now()
    recorder.hasten()
    return now() - begun


def _each(function: Callable[..., Any], *args: Any) -> float:
    begun = time.thread_time_ns()
    for _ in range(TIMES):
        function(*args)
    return (time.thread_time_ns() - begun) / TIMES


def _nothing(*_: Any) -> None:
    pass


def told(costs: dict[str, float]) -> str:
    """The costs in a line."""
    return f"tracing cost {costs['event ns']:.0f} ns an event, {costs['call of 1 ms']:.2%} of a call of 1 ms (measured here)"
