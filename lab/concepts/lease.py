"""Lease: a lock whose holder has gone silent must become free; and then the holder comes back.

A writer takes the lock, reads the balance, and is frozen with its whole host: a long garbage collection, a suspended
machine, a network that is gone. A second one wants the lock meanwhile. Then the first wakes up, in the middle of its
critical section, knowing nothing, and writes what it had computed.

* threads, processes: the lock has no lease. The second waits as long as the first is frozen, and would wait for ever if
  the first were dead. Nothing is lost: nobody else was let in.
* cluster: a host that is silent for a lease is taken for dead, and its locks are free. So for a while two believe that they
  hold the lock. No lock can prevent that; what protects the balance is whoever stores it, by refusing a writer whose time
  is over. The lab's scripts refuse it (LeaseLost). To show what happens without, the program writes past that check as well.

The idea is that of a fencing token (Kleppmann, "How to do distributed locking", 2016): ids here are never used again, so a
process that was taken for dead is refused for ever.
"""

from __future__ import annotations

import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, freeze, join, main, start, until, write_past_the_fence
from lab.errors import LeaseLost
from lab.evidence import Result, Who

WHY = {
    "threads": "Nobody can tell a frozen holder from a slow one, so the lock waits for it.",
    "processes": "The kernel's semaphore has no owner and no clock: it waits for the holder, frozen or dead.",
    "cluster": "A lease ends; the late writer is refused by the script that writes, not by the lock.",
}
ADDS_FIRST, ADDS_SECOND = 1, 10


def first(fenced: Any, unfenced: Any, lock: Any, holds: Any, refused: Any, reply: Any, seconds: float) -> None:
    """Take the lock, read both balances, freeze, wake up and write what was computed before."""
    try:
        with lock:
            seen = fenced.value, unfenced.value
            reply.put(Who.here())
            holds.set()
            freeze(seconds)
            write_past_the_fence(unfenced, seen[1] + ADDS_FIRST)
            fenced.value = seen[0] + ADDS_FIRST
    except LeaseLost:  # the write was refused, or at the latest the release that followed it
        write_past_the_fence(refused, 1)  # any other way to say so would be refused as well


def second(fenced: Any, unfenced: Any, lock: Any, waited: Any, reply: Any) -> None:
    """Take the lock when it can be had, and add to both balances."""
    with lock:
        waited.set()
        reply.put(Who.here())
        fenced.value += ADDS_SECOND
        unfenced.value += ADDS_SECOND


def run(ctx: Any) -> Result:
    """Freeze the holder of a lock for longer than its lease, and see what becomes of its late write."""
    result = Result("lease", ctx.place)
    lease = ctx.settings.lease if ctx.place == "cluster" else 0.0
    seconds = lease * 1.5 + 1
    fenced, unfenced, refused = (ctx.Value("i", 0, lock=False) for _ in range(3))
    lock, holds, waited, reply = ctx.Lock(), ctx.Event(), ctx.Event(), ctx.SimpleQueue()
    holder = start(ctx, first, [(fenced, unfenced, lock, holds, refused, reply, seconds)])
    result.check("the first had the lock", holds.wait(PATIENCE))
    begun = time.perf_counter()
    contender = start(ctx, second, [(fenced, unfenced, lock, waited, reply)])
    let_in = waited.wait(seconds - 0.5)
    waited.wait(PATIENCE)
    result.costs["get the lock of a frozen holder"] = time.perf_counter() - begun
    codes = join(holder + contender)
    if (
        lease
    ):  # the join of the first ended when it was taken for dead; it is still frozen, and nobody hears it any more
        result.check("the late write was refused", until(lambda: bool(refused.value)))

    result.who = sorted({reply.get(), reply.get()})
    both = ADDS_FIRST + ADDS_SECOND
    result.facts = {"lease": lease, "frozen": seconds, "let in while the first was frozen": let_in, "exit codes": codes}
    result.facts |= {"balance, fenced": fenced.value, "balance, not fenced": unfenced.value}
    if lease:
        result.check("after the lease the second was let in, though the first was still inside", let_in)
        result.check("so the second's addition stands", fenced.value == ADDS_SECOND)
        result.check("past the fence, the late write destroyed the second's", unfenced.value == ADDS_FIRST)
    else:
        result.check("the second waited for the first", not let_in)
        result.check("nothing was lost", fenced.value == unfenced.value == both)
    verdict = f"the second was let in {'meanwhile' if let_in else 'afterwards'}; {ADDS_FIRST} and {ADDS_SECOND} added"
    verdict += f" made {fenced.value} with a fence, {unfenced.value} without"
    return result.conclude(f"The holder of a lock froze for {seconds:g} s; {verdict}.", borne_out(result, WHY))


if __name__ == "__main__":
    raise SystemExit(main(run))
