"""Counter: ten workers add one fifty times each. Without a lock, updates are lost.

``value.value += 1`` is a read, an addition and a write. Two workers that read the same number write the same sum, and
one update is lost. Four ways, several trials each:

* plain: ``+= 1`` as it stands. The window between read and write is small: what is lost is luck, nothing or hundreds.
* window open: a sleep between read and write, on purpose, so that the loss shows every time.
* lock: the course's cure. Exactly 500, at the price that everybody waits for everybody.
* atomic: exactly 500 without the program locking anything. On threads and processes Python has no such operation, so
  ``lab.atomic_add`` holds the value's own lock, once for a worker's whole batch. On the cluster it is a Redis command.

On interpreters there is a fifth, ``token``. PEP 734 gives them queues and no lock, so a token in a queue is one: who has
taken it may go on, and puts it back. Exact; but nobody is woken: who finds the queue empty looks again every 10 ms. (``lock``
is the kernel's semaphore there, which one process may open as often as it likes.)

On the cluster there are two ways more. Its pool hands the call of a worker that died to another one (see ``loss``), so some
calls are done twice, and an addition that is right for each worker is wrong for the whole:

* redelivered: an atomic add in each of a hundred calls, four of which kill their worker right after it. Counts too much.
* by number: ``Value.add_once`` remembers the number of the call and adds, in one step, or does nothing if it knows the
  number. Exact, however often a call is done. (``delivery`` shows the same in all places.)

What to expect: the same counts everywhere; the lock costs 1 us on threads, 10 on processes, network round trips on the
cluster, where the atomic add is the cheap way. The GIL does not help: threads are switched between read and write too.

The course blames several cores; one core loses updates just as well, whenever a worker is interrupted in between. It
sleeps outside the window, between increments, so its workers rarely meet and it loses 2 or 3 of 500: less harmless than
it looks. And a ``Value`` has a lock already: ``with value.get_lock():`` needs no second.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab import atomic_add
from lab.concepts._shared import PATIENCE, borne_out, join, main, median, seconds_text, start, take
from lab.evidence import Result, Who

WHY = {
    "threads": "The GIL can be given up between a read and its write; a lock in the same memory is cheap.",
    "free-threaded": "Threads run on several cores at once, so others come between a read and its write; the lock is cheap.",
    "interpreters": "All map the same memory without a common GIL; Python gives them no lock, so this one is the kernel's.",
    "processes": "All map the same memory, where others can come between a read and its write; the lock is the kernel's.",
    "cluster": "Read and write are two commands to Redis; a lock adds a round trip each, INCR is one command in all.",
}


def plain(value: Any, lock: Any, times: int, batch: int) -> None:  # noqa: ARG001  # the ways are called alike
    """Read, add and write, as if alone."""
    for _ in range(times):
        value.value += 1


def window_open(value: Any, lock: Any, times: int, batch: int) -> None:  # noqa: ARG001
    """Sleep between the read and the write, so that others read the same number."""
    for _ in range(times):
        seen = value.value
        time.sleep(0.001)
        value.value = seen + 1


def locked(value: Any, lock: Any, times: int, batch: int) -> None:  # noqa: ARG001
    """Nobody else's read or write falls between ours."""
    for _ in range(times):
        with lock:
            value.value += 1


def atomic(value: Any, lock: Any, times: int, batch: int) -> None:  # noqa: ARG001
    """Add in as few steps as the place has: ``batch`` at a time."""
    for _ in range(times // batch):
        atomic_add(value, batch)


def token(value: Any, lock: Any, times: int, batch: int) -> None:
    """As with the lock, which is a token in a queue here."""
    locked(value, lock, times, batch)


WAYS: tuple[Callable[..., None], ...] = (plain, window_open, locked, atomic)

Way = tuple[Callable[..., None], Any]
"""A way to add, and the lock for it."""


def work(value: Any, ways: list[Way], gate: Any, reply: Any, times: int, batch: int, trials: int) -> None:
    """Every trial of every way, together with the other workers: the gate opens when all have come to it."""
    costs: dict[str, list[float]] = {}
    for way, lock in ways:
        for _ in range(trials):
            gate.wait(PATIENCE)
            started = time.perf_counter()
            way(value, lock, times, batch)
            costs.setdefault(way.__name__, []).append((time.perf_counter() - started) / times)
            gate.wait(PATIENCE)
    reply.put((Who.here(), costs))


_counters: tuple[Any, Any, Any]


def use(*counters: Any) -> None:
    """Give a worker of the pool the counters."""
    global _counters
    _counters = counters


def call(number: int) -> None:
    """Add one, plainly and by number; every 25th call kills its worker, the first time."""
    plainly, by_number, deaths = _counters
    plainly.add(1)
    by_number.add_once(1, number)
    if number % 25 == 0 and deaths.add_once(1, number):
        os.kill(os.getpid(), signal.SIGKILL)


def redelivered(ctx: Any, result: Result, calls: int = 100) -> str:
    """Count calls of a pool whose workers are killed; what came of it."""
    counters = [ctx.Value("q", 0) for _ in range(3)]
    with ctx.Pool(3, use, counters) as pool:
        pool.map(call, range(calls), 1)
    plainly, by_number, deaths = (counter.value for counter in counters)
    result.facts["redelivered"] = {"calls": calls, "deaths": deaths, "counted": plainly, "by number": by_number}
    result.check("every call that was to kill its worker did", deaths == calls // 25)
    result.check("redelivered, some calls were counted twice", plainly >= calls + deaths)
    result.check("by number, every call was counted once", by_number == calls)
    return f" Of {calls} calls under {deaths} deaths: counted {plainly}, by number {by_number}."


def run(ctx: Any, *, workers: int = 10, times: int = 50, trials: int = 5) -> Result:
    """Count to workers * times in four ways, on interpreters in five; on the cluster, calls that are done twice in two."""
    result = Result("counter", ctx.place)
    value, lock, gate, reply = ctx.Value("q", 0), ctx.Lock(), ctx.Barrier(workers + 1), ctx.Queue()
    batch = 1 if hasattr(value, "add") else times
    ways: list[Way] = [(way, lock) for way in WAYS]
    if hasattr(ctx, "Token"):
        ways.append((token, ctx.Token()))
    children = start(ctx, work, [(value, ways, gate, reply, times, batch, trials)] * workers)
    lost: dict[str, list[int]] = {}
    for way, _lock in ways:
        for _ in range(trials):
            value.value = 0
            gate.wait(PATIENCE)  # all start
            gate.wait(PATIENCE)  # all have ended
            lost.setdefault(way.__name__, []).append(workers * times - value.value)
    reports = take(reply, workers)
    codes = join(children)

    result.who = sorted({who for who, _ in reports})
    for name, losses in lost.items():
        result.facts[f"{name}: trials by updates lost"] = {str(k): n for k, n in sorted(Counter(losses).items())}
        if name != "window_open":  # its cost would be the sleep's
            result.costs[f"increment, {name}"] = median(cost for _, costs in reports for cost in costs[name])
    result.facts |= {"atomic: increments at a time": batch, "exit codes": codes}
    result.check("with the window open, every trial lost updates", min(lost["window_open"]) > 0)
    result.check("with the lock, no trial lost one", set(lost["locked"]) == {0})
    result.check("atomically, no trial lost one", set(lost["atomic"]) == {0})
    if "token" in lost:
        result.check("with the token, no trial lost one", set(lost["token"]) == {0})
    result.check("no way counted too much", min(map(min, lost.values())) >= 0)
    result.check("all workers ended well", set(codes) == {0})
    worst = ", ".join(f"{name} {max(losses)}" for name, losses in lost.items())
    if not max(lost["plain"]):
        worst += "; plain lost none this time: no two met in its small window"
    locked_cost, atomic_cost = (seconds_text(result.costs[f"increment, {name}"]) for name in ("locked", "atomic"))
    costs = f"an increment cost {locked_cost} locked, {atomic_cost} atomic ({batch} at a time)"
    if "token" in lost:
        costs += f", {seconds_text(result.costs['increment, token'])} by token"
    more = redelivered(ctx, result) if hasattr(value, "add_once") else ""
    return result.conclude(f"Lost of {workers * times} at worst: {worst}; {costs}.{more}", borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
