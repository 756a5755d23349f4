"""Queue: any number of producers and consumers, and each item goes to exactly one of them.

A hello first, as in the course. Then several producers put items, several consumers take them, and each item must
arrive once. Then ``Queue(maxsize=10)``: the producer is fast and the consumer slow on purpose, so the producer finds
the queue full and must wait, again and again: the slow side sets the pace. Last, a put and a get that give up in time.

* threads: a ``deque`` under a lock, in one memory.
* processes: a kernel pipe, filled by a feeder thread in each producer; the bound is a semaphore that all share.
* cluster: a list in Redis that blocks whoever finds it empty or full, on any host.

The course shows ``maxsize`` but not what it is for. And ``empty()`` cannot end a consumer: an item may be on its way. A
message that says so does: here one None for each consumer, put when the last producer has ended.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from typing import Any

from lab.concepts._shared import borne_out, join, main, median, seconds_text, start, take
from lab.evidence import Result, Who

WHY = {
    "threads": "One deque in one memory: a lock hands each item to one thread, and a condition wakes who waits.",
    "interpreters": "A pipe, a lock and a semaphore of the kernel, as between processes: they share no object of Python's.",
    "processes": "One kernel pipe: a lock lets one reader at a time take an item, a semaphore counts the free places.",
    "cluster": "One list in Redis: it serves one command after another, so no item can be taken twice.",
}


def produce(items: Any, numbers: list[int]) -> None:
    """Put every number."""
    for number in numbers:
        items.put(number)


def consume(items: Any, reply: Any) -> None:
    """Take items until None comes, then tell which they were."""
    reply.put((Who.here(), list(iter(items.get, None))))


def run_ahead(items: Any, count: int, reply: Any) -> None:
    """Put as fast as the queue allows; tell how long each put waited that found it full."""
    waits = []
    for number in range(count):
        try:
            items.put(number, block=False)
        except queue.Full:
            started = time.perf_counter()
            items.put(number)
            waits.append(time.perf_counter() - started)
    reply.put((Who.here(), waits))


def gives_up(operation: Any, error: type[Exception]) -> float:
    """Seconds after which the operation raised the error; 0 if it did not."""
    started = time.perf_counter()
    try:
        operation()
    except error:
        return time.perf_counter() - started
    return 0.0


def run(ctx: Any, *, workers: int = 3, each: int = 40, maxsize: int = 10, count: int = 40) -> Result:
    """Move items from producers to consumers, then hold a fast producer back."""
    result = Result("queue", ctx.place)
    reply, items = ctx.Queue(), ctx.Queue()

    items.put("Hello labex")
    hello = take(items, 1)[0]
    started = time.perf_counter()
    for number in range(each):
        items.put(number)
        take(items, 1)
    result.costs["put and get"] = (time.perf_counter() - started) / each

    numbers = [list(range(first * each, (first + 1) * each)) for first in range(workers)]
    consumers = start(ctx, consume, [(items, reply)] * workers)
    codes = join(start(ctx, produce, [(items, some) for some in numbers]))
    for _ in range(workers):
        items.put(None)
    taken = take(reply, workers)
    codes += join(consumers)
    arrived = Counter(number for _, some in taken for number in some)

    bounded = ctx.Queue(maxsize=maxsize)
    runner = start(ctx, run_ahead, [(bounded, count, reply)])
    for _ in range(count):
        take(bounded, 1)
        time.sleep(0.005)  # slow on purpose, so that the producer runs into the bound
    producer, waits = take(reply, 1)[0]
    codes += join(runner)

    small = ctx.Queue(maxsize=1)
    small.put("the only one")
    full = gives_up(lambda: small.put("one too many", timeout=0.1), queue.Full)
    take(small, 1)
    empty = gives_up(lambda: small.get(timeout=0.1), queue.Empty)

    result.who = sorted({producer, *(who for who, _ in taken)})
    result.facts = {"hello": hello, "items": arrived.total(), "distinct": len(arrived), "exit codes": codes}
    result.facts["items by consumer"] = {str(who): len(some) for who, some in taken}
    result.facts["puts that waited"] = f"{len(waits)} of {count}, {seconds_text(sum(waits))} in all"
    result.costs["put held back"] = median(waits or [0.0])
    result.check("every item arrived exactly once", arrived == Counter(range(workers * each)))
    result.check("a bounded queue held the fast producer back", len(waits) > 0 and sum(waits) > 0)
    result.check("a put into a full queue raised Full in time", 0.09 < full < 10)
    result.check("a get from an empty queue raised Empty in time", 0.09 < empty < 10)
    result.check("all children ended well", set(codes) == {0})
    happened = f"{arrived.total()} items, {len(arrived)} of them distinct, {workers} producers to {workers} consumers; "
    happened += f"maxsize={maxsize} made {len(waits)} of {count} puts wait {seconds_text(sum(waits))} in all."
    return result.conclude(happened, borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
