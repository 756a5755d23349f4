"""The GIL: what several workers speed up, and what they do not.

The same items on 1, 2 and 4 workers: items that compute (a loop in Python) and items that wait (a sleep). Each round
measures all worker counts one after the other, and the best of the rounds counts, so that a noisy machine disturbs them
alike. Beside the speed-up stands how many cores the items kept busy: the processor time they used, over the time taken.
Other programs slow both down but never push it above what the GIL allows, so the claims are made of it: with a GIL not
one round is above 1; without, one round above 1 is proof, and the rounds go on for a while until there is one.

* threads: waiting is four times as fast with four. Computing gains nothing: one thread at a time holds the GIL, so no
  more than one core is busy, on any machine. An interpreter built without the GIL has no such limit, and says so
  (``--on free-threaded``).
* interpreters: each has a GIL of its own in one process, so computing gains as in processes.
* processes: each has its own interpreter and its own GIL, so computing gains until the cores of this host are used up.
* cluster: until the cores of all hosts are used up. (The embedded fleet's hosts share the cores of this machine.)

The course says that because of the GIL "it does not do real concurrency". It does: threads take turns, and waiting
overlaps. What they lack is parallel Python code. Extensions that let go of the GIL (compression, hashing, numpy) run in
parallel in threads; and since Python 3.13 there is a build without it, where this table looks like that of processes.
"""

from __future__ import annotations

import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, cores, has_gil, main
from lab.evidence import Result, Who

WHY = {
    "threads": "One interpreter has one GIL: its threads compute by turns, and wait at the same time.",
    "interpreters": "Each has a GIL of its own in the one process: they compute at the same time, as far as cores go.",
    "processes": "Each process has its own interpreter and GIL: they compute at the same time, as far as cores go.",
    "cluster": "Each process has its own interpreter and GIL, on whatever host: cores of all hosts count.",
}


WITHOUT_GIL = "This interpreter has no GIL: workers compute at the same time, threads too, as far as cores go."


def be_there(gate: Any) -> None:
    """In each worker, before its first item: wait for the others."""
    gate.wait(PATIENCE)


def compute(size: int) -> tuple[Who, float]:
    """Loop in Python; who did, and the processor time it used."""
    started = time.thread_time()
    total = 0
    for number in range(size):
        total += number
    return Who.here(), time.thread_time() - started


def wait(seconds: float) -> tuple[Who, float]:
    """Wait; who did, and the processor time it used: almost none."""
    started = time.thread_time()
    time.sleep(seconds)
    return Who.here(), time.thread_time() - started


def run(ctx: Any, *, items: int = 8, size: int = 400_000, seconds: float = 0.01, rounds: int = 6) -> Result:
    """Compute and wait on 1, 2 and 4 workers."""
    result = Result("gil", ctx.place)
    gil = has_gil()
    pools = {}
    for workers in (1, 2, 4):
        gate = ctx.Barrier(workers + 1)
        pools[workers] = ctx.Pool(workers, initializer=be_there, initargs=(gate,))
        gate.wait(PATIENCE)  # every worker is there before the clock starts

    taken: dict[str, dict[int, list[float]]] = {}
    busy: dict[str, dict[int, list[float]]] = {}
    whos = set()
    parallel = cores() >= 2 and not (ctx.place == "threads" and gil)
    most_busy, done = 0.0, 0
    while done < rounds or (parallel and most_busy < 1.1 and done < 10 * rounds):
        done += 1
        for target, argument in ((compute, size), (wait, seconds)):
            for workers, pool in pools.items():
                started = time.perf_counter()
                answers = pool.map(target, [argument] * items, chunksize=1)
                elapsed = time.perf_counter() - started
                taken.setdefault(target.__name__, {}).setdefault(workers, []).append(elapsed)
                used = sum(used for _, used in answers) / elapsed
                busy.setdefault(target.__name__, {}).setdefault(workers, []).append(used)
                most_busy = max(most_busy, used)
                whos |= {who for who, _ in answers}
    for pool in pools.values():
        pool.close()
        pool.join()

    speedup = {
        kind: {str(workers): round(min(by[1]) / min(times), 2) for workers, times in by.items()}
        for kind, by in taken.items()
    }
    most = {kind: {str(n): round(max(used), 2) for n, used in by.items()} for kind, by in busy.items()}
    result.who = sorted(whos)
    result.facts = {
        "speed-up by workers": speedup,
        "cores kept busy": most,
        "GIL": gil,
        "cores": cores(),
        "rounds": done,
    }
    for kind, by in taken.items():
        result.costs |= {f"{kind} item, {workers} workers": min(times) / items for workers, times in by.items()}
    result.check("4 workers speed up waiting, GIL or not", speedup["wait"]["4"] > 1.5)
    if ctx.place == "threads" and gil:
        result.check("threads of one interpreter never kept more than one core busy computing", most_busy < 1.1)
    elif parallel:
        result.check("workers without a common GIL kept more than one core busy computing", most_busy >= 1.1)
    why = WHY if gil else dict.fromkeys(WHY, WITHOUT_GIL)
    table = (f"{kind} {', '.join(f'{x} by {n}' for n, x in by.items() if n != '1')}" for kind, by in speedup.items())
    return result.conclude(
        f"Speed-up on {cores()} cores: {'; '.join(table)}; GIL {'on' if gil else 'off'}.", borne_out(result, why)
    )


if __name__ == "__main__":
    raise SystemExit(main(run))
