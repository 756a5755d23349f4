"""A small program that shows, in each place, whatever a report can show; where processes can be killed, one is."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def work(lock: Any, total: Any, gate: Any, out: Any, rounds: int) -> None:
    """Fight for a lock, add, and send what there is."""
    gate.wait(60)
    for number in range(rounds):
        with lock:
            total.value += 1
            time.sleep(0.004)
        sum(range(60_000))
        if number % 3 == 0:
            out.put(number)
    out.put(None)


def lookup(number: int) -> int:
    """A call of a pool; where that can be mended, one of them kills its worker, once."""
    if number == 2 and deaths is not None and deaths.add_once(1, number):
        time.sleep(0.03)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


deaths: Any = None


def use(counter: Any) -> None:
    """Give a worker the count of deaths."""
    global deaths
    deaths = counter


def play(ctx: Any, workers: int = 4, rounds: int = 7) -> None:
    """The program."""
    lock, total, gate, out = ctx.Lock(), ctx.Value("q", 0), ctx.Barrier(workers + 1), ctx.Queue()
    children = [
        ctx.Process(target=work, args=(lock, total, gate, out, rounds), name=f"worker {n + 1}") for n in range(workers)
    ]
    for child in children:
        child.start()
    gate.wait(60)
    left = workers
    while left:
        left -= out.get(timeout=60) is None
    for child in children:
        child.join(60)
    assert total.value == workers * rounds
    with ctx.Pool(2, use, (ctx.Value("q", 0) if hasattr(total, "add_once") else None,)) as pool:
        assert pool.map(lookup, range(8), 1) == list(range(8))
