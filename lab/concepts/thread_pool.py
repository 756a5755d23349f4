"""Thread pool: work that waits is done side by side, GIL or not.

The same items, each waiting a little, one after the other and then on four workers, by the three pools there are:
``concurrent.futures.ThreadPoolExecutor``, ``multiprocessing.pool.ThreadPool`` and this place's ``Pool``. A sleep stands
for the wait for a server or a disk: all of them let go of the GIL. Last both kinds at once: two workers of this place,
each with four threads, have eight items waiting at a time.

* threads: all three are threads, about four times as fast as one; a new thread costs some 50 us.
* processes: as fast, but a worker costs a new interpreter. For work that only waits, threads are the cheaper choice.
* cluster: as fast, on several hosts: the choice when one host's network or file handles are the limit.

The course's GIL chapter ends with "we still recommend the use of multi-process". For work that waits, this shows that
there is nothing to gain from it; for work that computes, see ``lab.concepts.gil``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from multiprocessing.pool import ThreadPool
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, main, seconds_text
from lab.evidence import Result, Who

WHY = {
    "threads": "A thread that waits has let go of the GIL, so the others run: waiting overlaps on any number of cores.",
    "free-threaded": "There is no GIL to let go of; a thread that waits needs no core, so waiting overlaps as before.",
    "interpreters": "Waiting overlaps in threads already; interpreters do it no faster, and each imports its modules anew.",
    "processes": "Waiting overlaps in threads already; processes do it no faster, and cost more to start.",
    "cluster": "Waiting overlaps in threads already; other hosts do it no faster, but bring their own limits.",
}


def wait_for_all(gate: Any) -> None:
    """In each worker, before its first item: be there."""
    gate.wait(PATIENCE)


def fetch(seconds: float) -> Who:
    """Wait, as for a server's answer."""
    time.sleep(seconds)
    return Who.here()


def fetch_many(items: list[float], threads: int) -> list[Who]:
    """Wait for several answers at once, with threads inside this worker."""
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(fetch, items))


def run(ctx: Any, *, workers: int = 4, count: int = 16, seconds: float = 0.03) -> Result:
    """Wait for the same items by each kind of pool."""
    result = Result("thread_pool", ctx.place)
    items = [seconds] * count
    gate = ctx.Barrier(workers + 1)

    executor, threads = ThreadPoolExecutor(workers), ThreadPool(workers)
    pool = ctx.Pool(workers, initializer=wait_for_all, initargs=(gate,))
    gate.wait(PATIENCE)  # every worker is there before the clock starts
    half = [seconds] * (count // 2)
    ways: dict[str, Callable[[], list[Any]]] = {
        "one after the other": lambda: [fetch(item) for item in items],
        "ThreadPoolExecutor": lambda: list(executor.map(fetch, items)),
        "ThreadPool": lambda: threads.map(fetch, items, chunksize=1),
        "Pool of this place": lambda: pool.map(fetch, items, chunksize=1),
        "2 workers with threads": lambda: list(chain(*pool.starmap(fetch_many, [(half, workers)] * 2, chunksize=1))),
    }
    taken: dict[str, float] = {}
    whos: dict[str, set[Who]] = {}
    for way, do in ways.items():
        started = time.perf_counter()
        whos[way] = set(do())
        taken[way] = time.perf_counter() - started
        result.costs[f"item, {way}"] = taken[way] / count
    executor.shutdown()
    for some_pool in (threads, pool):
        some_pool.close()
        some_pool.join()

    speedup = {way: round(taken["one after the other"] / some, 2) for way, some in taken.items()}
    result.who = sorted(whos["Pool of this place"] | whos["2 workers with threads"])
    result.facts = {"speed-up": speedup, "threads that waited": {way: len(some) for way, some in whos.items()}}
    result.facts["processes that waited"] = {
        way: len({(who.host, who.pid) for who in some}) for way, some in whos.items()
    }
    for way in list(ways)[1:]:
        result.check(f"{way}: waiting overlaps", speedup[way] > 1.5)
    happened = f"{count} waits of {seconds_text(seconds)}, times as fast as one after the other: "
    return result.conclude(
        happened + ", ".join(f"{way} {speedup[way]}" for way in list(ways)[1:]) + ".", borne_out(result, WHY)
    )


if __name__ == "__main__":
    raise SystemExit(main(run))
