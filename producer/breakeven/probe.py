"""What things cost in a place: medians, and the quartiles beside them.

(``python -m benchmarks.side_by_side`` measures more of it, against multiprocessing, and takes longer.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lab.work import burn, machine, same
from producer.breakeven.model import Costs, Spread

ROUNDS = 5
WORKERS = (2, 4, 8)
SINGLES = 300
ITEMS = 20_000
CHUNK = 1_000
CALLS = 30
LOCKS = 100
MESSAGES = 300
BURN_SECONDS = 0.02
MEGABYTE = bytes(1_000_000)


def seconds(work: Callable[[], object]) -> float:
    """What a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def repeated(once: Callable[[], float]) -> Spread:
    """The spread of ``ROUNDS`` measurements, after one that does not count."""
    once()
    return Spread.of([once() for _ in range(ROUNDS)])


@contextmanager
def pool_of(ctx: Any, workers: int) -> Iterator[Any]:
    """A pool whose workers have all begun."""
    pool = ctx.Pool(workers)
    try:
        pool.map(same, range(4 * workers), 1)
        yield pool
        pool.close()
    except BaseException:
        pool.terminate()
        raise
    pool.join()


def measure(ctx: Any, most_workers: int, say: Callable[[str], None]) -> tuple[Costs, dict[str, int]]:
    """Measure a place.

    Args:
        ctx: Its context.
        most_workers: How many it can have.
        say: Told of each step.

    Returns:
        What things cost, and the cores by machine as the workers see them; hosts that share a machine count once.
    """
    say(f"{ctx.place}: messages, locks, queues ...")
    with pool_of(ctx, 2) as pool:
        costs = Costs(
            place=ctx.place,
            call=repeated(lambda: seconds(lambda: [pool.apply(same, (0,)) for _ in range(CALLS)]) / CALLS),
            single=repeated(lambda: seconds(lambda: pool.map(same, range(SINGLES), 1)) / SINGLES),
            item=repeated(lambda: seconds(lambda: pool.map(same, range(ITEMS), CHUNK)) / ITEMS),
            megabyte=repeated(lambda: seconds(lambda: pool.map(same, [MEGABYTE] * 4, 1)) / 4),
            lock=repeated(lambda: _lock(ctx)),
            queue=_queue(ctx),
        )
    loops, cores = _loops(), {}
    for workers in [each for each in WORKERS if each <= most_workers]:
        say(f"{ctx.place}: how fast {workers} workers compute ...")
        starts = [_start(ctx, workers)]
        begun = time.perf_counter()
        with pool_of(ctx, workers) as pool:
            starts.append(time.perf_counter() - begun)
            costs.power[workers] = repeated(partial(_power, pool, workers, loops))
            cores = _cores(pool, workers)
        costs.start[workers] = Spread.of(starts)
    return costs, cores


def _lock(ctx: Any) -> float:
    lock = ctx.Lock()

    def take() -> None:
        for _ in range(LOCKS):
            lock.acquire()
            lock.release()

    return seconds(take) / LOCKS


def _queue(ctx: Any) -> Spread:
    queue = ctx.Queue()

    def through() -> None:
        for i in range(MESSAGES):
            queue.put(i)
        for _ in range(MESSAGES):
            queue.get()

    spread = repeated(lambda: seconds(through) / MESSAGES)
    queue.close()
    queue.join_thread()
    return spread


def _start(ctx: Any, workers: int) -> float:
    begun = time.perf_counter()
    with pool_of(ctx, workers):
        return time.perf_counter() - begun


def _loops() -> int:
    """How many loops of ``burn`` take ``BURN_SECONDS`` here."""
    loops = 1000
    while (took := min(seconds(partial(burn, loops)) for _ in range(3))) < BURN_SECONDS / 4:
        loops *= 2
    return int(loops * BURN_SECONDS / took)


def _power(pool: Any, workers: int, loops: int) -> float:
    """The same computing here and there, one after the other, so that a neighbour's load meets both."""
    items = [loops] * (2 * workers)
    here = seconds(lambda: [burn(loops) for _ in range(4)]) / 4 * len(items)
    return here / seconds(lambda: pool.map(burn, items, 1))


def _cores(pool: Any, workers: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in pool.map(machine, range(2 * workers), 1):
        found[name] = max(count, found.get(name, 0))
    return found
