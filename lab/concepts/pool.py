"""Pool: a fixed team of workers, and the difference between asking and waiting.

The course's thirty numbers on a pool of three, four times. ``apply``, which the course calls in a loop, waits for each
answer before the next call: two workers of three have nothing to do. ``map`` hands out everything at once and returns
the answers in order; ``imap_unordered`` gives each as soon as it is there; ``apply_async`` is ``apply`` without the
wait. Each number takes a little while (a sleep, on purpose), so that the difference is in the waiting.

* threads: the workers are threads; an exception arrives as the very object that was raised.
* processes: three processes stay for all calls. An exception is pickled, and brings the worker's traceback as a text.
* cluster: the same, with the workers on several hosts, each taking from a Redis list what it can do next.

An initializer runs once in each worker, before its first item: here it keeps the time an item takes.

The course says that each task "goes to a process in the pool", true, but its loop has one task at a time. It counts to
30, which is 29, and leaves its pool to the garbage collector: a pool wants ``close()`` and ``join()``.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, main, seconds_text
from lab.evidence import Result, Who

WHY = {
    "threads": "Three threads take from one queue; sleeping, like any waiting, lets go of the GIL.",
    "free-threaded": "Three threads take from one queue; sleeping, like any waiting, needs no core.",
    "interpreters": "Three interpreters take from one pipe; each call costs a pickle there and one back.",
    "processes": "Three processes take from one pipe; each call costs a pickle there and one back.",
    "cluster": "Three processes on the fleet's hosts take from one list; the network is paid per batch, not per item.",
}

pause = 0.0


def prepare(seconds: float, gate: Any) -> None:
    """Runs once in each worker: keep the time an item takes; then meet the others, so that all start together."""
    global pause
    pause = seconds
    gate.wait(PATIENCE)


def number(i: int) -> tuple[int, Who]:
    """The number, after a while, and who had it."""
    time.sleep(pause)
    return i, Who.here()


def picky(i: int) -> int:
    """Refuse thirteen."""
    if i == 13:
        raise ValueError("thirteen is refused")
    return i


def run(ctx: Any, *, workers: int = 3, count: int = 30, seconds: float = 0.01) -> Result:
    """Do thirty numbers on three workers in four ways, and let one fail."""
    result = Result("pool", ctx.place)
    numbers = range(count)
    gate = ctx.Barrier(workers + 1)
    pool = ctx.Pool(workers, initializer=prepare, initargs=(seconds, gate))
    gate.wait(PATIENCE)  # every worker is there before the clock starts

    ways: dict[str, Callable[[], list[tuple[int, Who]]]] = {
        "apply": lambda: [pool.apply(number, (i,)) for i in numbers],
        "map": lambda: pool.map(number, numbers),
        "imap_unordered": lambda: list(pool.imap_unordered(number, numbers)),
        "apply_async": lambda: [ask.get(PATIENCE) for ask in [pool.apply_async(number, (i,)) for i in numbers]],
    }
    taken, answers = {}, {}
    for way, do in ways.items():
        started = time.perf_counter()
        answers[way] = do()
        taken[way] = time.perf_counter() - started
        result.costs[f"item by {way}"] = taken[way] / count
    report = ""
    try:
        pool.map(picky, numbers)
    except ValueError as exc:
        report = "".join(traceback.format_exception(exc))
    pool.close()
    pool.join()

    result.who = sorted({who for some in answers.values() for _, who in some})
    result.facts["items by worker"] = {
        way: {str(who): items for who, items in Counter(who for _, who in some).items()}
        for way, some in answers.items()
    }
    result.facts["order of imap_unordered"] = [i for i, _ in answers["imap_unordered"]]
    result.facts["traceback of item 13"] = report.strip().splitlines()
    result.facts["speed-up over apply"] = {way: round(taken["apply"] / taken[way], 2) for way in ways}
    result.check(
        "every way did every number once", all(sorted(i for i, _ in a) == list(numbers) for a in answers.values())
    )
    result.check("map keeps the order", [i for i, _ in answers["map"]] == list(numbers))
    result.check("apply in a loop is serial: it takes the sum of the items", taken["apply"] >= count * seconds)
    result.check("the other ways are faster", all(taken["apply"] > 1.3 * taken[way] for way in ways if way != "apply"))
    result.check(
        "the exception came with the line that raised it, in picky", "in picky" in report and "thirteen" in report
    )
    happened = f"{count} items of {seconds_text(seconds)} on {workers} workers: "
    happened += ", ".join(f"{way} {seconds_text(some)}" for way, some in taken.items())
    refusal = (report.strip().splitlines() or ["not refused"])[-1]
    return result.conclude(f"{happened}; item 13: {refusal}.", borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
