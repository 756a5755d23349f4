"""Share: a large table for every call, sent with each, once to each process, or once to each host.

Twenty-four calls to three workers look something up in a table of some megabytes. Three ways to have it there: as an argument
of each call; as an argument of the pool's initializer, which keeps it in a global; and as ``ctx.share(table)``, of which the
calls get something small whose ``value`` is the table. Each process counts the copies that were made for it.

* threads: there is one memory. An argument is the object itself, a global is everybody's, and so is what is shared.
* processes: an argument is pickled, pushed through a pipe and unpickled, 24 times. The initializer gets it once for each
  process. What is shared lies in memory that all processes map: no copy.
* cluster: the same by way of Redis, encrypted. What is shared comes to each host once, whoever asks there first, and
  the processes of that host map it.

The course hands data to its workers as arguments, and never asks what that costs. What is shared is for reading: the memory
is everybody's, so nobody may write to it. What is to be written belongs into a Value, an Array, or a result.
"""

from __future__ import annotations

import time
from typing import Any

from lab.concepts._shared import PATIENCE, borne_out, main, seconds_text
from lab.evidence import Result, Who

WHY = {
    "threads": "Threads have one memory: whatever way is taken, it is the same table.",
    "processes": "An argument is copied for each call, what an initializer gets for each process; what is shared is mapped.",
    "cluster": "An argument crosses the network for each call, what is shared once for each host, whose processes map it.",
}

EACH_CALL, EACH_PROCESS, EACH_HOST = "with each call", "once a process", "once a host"
copies = 0
kept: Any = None


class Table:
    """A block of bytes, which counts in each process how often it was copied there."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return arrived, (self.data,)


def arrived(data: bytes) -> Table:
    """What a process makes of a table that was pickled."""
    global copies
    copies += 1
    return Table(data)


def begin(gate: Any, table: Table | None = None) -> None:
    """In each worker: keep what was given, and wait for the others."""
    global kept
    kept = table
    gate.wait(PATIENCE)


def by_argument(table: Table, place: int) -> tuple[Who, int, int, bool]:
    """Who looked it up, what is there, the copies in this process so far, and whether it has brought a shared one."""
    return Who.here(), table.data[place], copies, False


def by_global(place: int) -> tuple[Who, int, int, bool]:
    """The same in what this worker keeps."""
    return by_argument(kept, place)


def by_share(shared: Any, place: int) -> tuple[Who, int, int, bool]:
    """The same in what is shared."""
    return Who.here(), shared.value[place], copies, shared.brought


def run(ctx: Any, *, workers: int = 3, calls: int = 24, size: int = 4_000_000) -> Result:
    """Have a table where calls need it, in three ways."""
    result = Result("share", ctx.place)
    data = bytes(range(250)) * (size // 250)
    places = [number * 7919 % len(data) for number in range(calls)]
    table = Table(data)
    found: dict[str, list[tuple[Who, int, int, bool]]] = {}
    for way in (EACH_CALL, EACH_PROCESS, EACH_HOST):
        gate = ctx.Barrier(workers + 1)
        pool = ctx.Pool(workers, begin, (gate, table) if way == EACH_PROCESS else (gate,))
        gate.wait(PATIENCE)  # every worker is there before the clock starts
        started = time.perf_counter()
        if way == EACH_CALL:
            found[way] = pool.starmap(by_argument, [(table, place) for place in places], chunksize=1)
        elif way == EACH_PROCESS:
            found[way] = pool.map(by_global, places, chunksize=1)
        else:
            shared = ctx.share(memoryview(data))
            result.costs["sharing it"] = time.perf_counter() - started
            found[way] = pool.starmap(by_share, [(shared, place) for place in places], chunksize=1)
        result.costs[f"call, {way}"] = (time.perf_counter() - started) / calls
        pool.close()
        pool.join()

    result.who = sorted({who for some in found.values() for who, *_ in some})
    made = {way: copies_in(some) for way, some in found.items()}
    hosts = {who.host for who, *_ in found[EACH_HOST]}
    brought = {(who.host, who.pid) for who, _, _, did in found[EACH_HOST] if did}
    right = sum(value == data[at] for some in found.values() for (_, value, *_), at in zip(some, places, strict=True))
    result.facts = {"bytes": len(data), "right answers": right, "copies": made, "brought to a host": len(brought)}
    processes = len({(who.host, who.pid) for who, *_ in found[EACH_PROCESS]})
    one_memory = ctx.place == "threads"
    result.check("every call found what is in the table", right == 3 * calls)
    result.check(
        "an argument is copied for each call, unless memory is one", made[EACH_CALL] == calls * (not one_memory)
    )
    result.check(
        "an initializer's is copied for each process at most", made[EACH_PROCESS] <= processes * (not one_memory)
    )
    result.check("what is shared is copied for no process", made[EACH_HOST] == 0)
    result.check("it came to each host once", len(brought) == (len(hosts) if ctx.place == "cluster" else 0))
    ways = ", ".join(f"{way} {made[way]} copies, {seconds_text(result.costs[f'call, {way}'])} a call" for way in found)
    return result.conclude(f"{calls} calls, a table of {len(data) / 1e6:.0f} MB: {ways}.", borne_out(result, WHY))


def copies_in(found: list[tuple[Who, int, int, bool]]) -> int:
    """The copies that were made in all processes."""
    most: dict[tuple[str, int], int] = {}
    for who, _, count, _ in found:
        most[who.host, who.pid] = max(count, most.get((who.host, who.pid), 0))
    return sum(most.values())


if __name__ == "__main__":
    raise SystemExit(main(run))
