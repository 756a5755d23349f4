"""Delivery: a worker dies after the task and before it says so; done again, it must not count twice.

Four workers get ten tasks each, and each task adds one. In the middle, every worker dies at the worst moment: it has
added, and has not yet acknowledged. Nobody can tell that from a worker that died before it added. So whoever hands out
tasks has a choice: never again what may have been done, and some is lost (at most once), or again whatever was not
acknowledged, and some is done twice (at least once). Every task queue that loses nothing chooses the second.

* plain: add one. Right for every task done once, one too many for every task done twice.
* once: add one, and remember the task's number, in one step; if the number is known, do nothing. Exact.

What to expect: the same counts in every place. It is the program that makes the effect happen once, not the delivery:
"exactly once" is at-least-once delivery of an effect that can be repeated. On the cluster remembering and adding are one
script in Redis, so no death falls between them. On processes they are two steps under a lock: exact as long as nobody
dies between those two, and whoever is killed there takes the lock with him.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from lab import atomic_add
from lab.concepts._shared import borne_out, join, main, median, start, take
from lab.evidence import Result, Who

WHY = {
    "threads": "Who dies is one function call; the others see its effects in the same memory.",
    "processes": "What the dead wrote to shared memory stays; only the acknowledgement is missing.",
    "cluster": "What the dead sent to Redis stays; one script remembers the number and adds.",
}


def once(value: Any, done: Any, number: int) -> None:
    """Add one, unless this number was added before."""
    if hasattr(value, "add_once"):
        value.add_once(1, number)
        return
    with value.get_lock():
        if not done[number]:
            done[number] = 1
            value.value += 1


def work(tasks: list[int], dies_at: int | None, counters: Any, done: Any, acks: Any) -> None:
    """Do tasks and acknowledge each; die after doing one of them, before acknowledging it."""
    plain, exact = counters
    for number in tasks:
        begun = time.perf_counter()
        atomic_add(plain, 1)
        between = time.perf_counter()
        once(exact, done, number)
        costs = between - begun, time.perf_counter() - between
        if number == dies_at:
            sys.exit(1)
        acks.put((number, Who.here(), costs))


def run(ctx: Any, *, workers: int = 4, each: int = 10) -> Result:
    """Deliver every task until it is acknowledged, and count what was done."""
    result = Result("delivery", ctx.place)
    count = workers * each
    counters, done = (ctx.Value("q", 0), ctx.Value("q", 0)), ctx.Array("b", count)
    acks, reports = ctx.Queue(), list[Any]()
    pending, rounds, codes = set(range(count)), 0, list[Any]()
    while pending and rounds < 3:
        shares = [sorted(n for n in pending if n % workers == worker) for worker in range(workers)]
        dies_at = [share[each // 2] if rounds == 0 else None for share in shares]
        arguments = [(share, n, counters, done, acks) for share, n in zip(shares, dies_at, strict=True)]
        children = start(ctx, work, arguments)
        expected = sum(len(share) if n is None else each // 2 for share, n in zip(shares, dies_at, strict=True))
        reports += take(acks, expected)
        pending -= {number for number, _, _ in reports}
        codes += join(children)
        rounds += 1
    acks.close()

    plain, exact = (counter.value for counter in counters)
    deaths = sum(code == 1 for code in codes)
    result.who = sorted({who for _, who, _ in reports})
    result.costs["add one"] = median(cost for _, _, (cost, _) in reports)
    result.costs["add one, once"] = median(cost for _, _, (_, cost) in reports)
    result.facts = {"tasks": count, "rounds": rounds, "deaths": deaths, "counted plainly": plain, "counted once": exact}
    result.check(
        "every worker of the first round died before it acknowledged a task that it had done", deaths == workers
    )
    result.check("every task was acknowledged in the end", not pending)
    result.check("plainly, every task whose worker died was counted twice", plain == count + deaths)
    result.check("by number, every task was counted once", exact == count)
    happened = f"{count} tasks, {deaths} deaths after the work and before its acknowledgement"
    return result.conclude(f"{happened}: counted plainly {plain}, by number {exact}.", borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
