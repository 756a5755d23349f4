"""The cluster beside ``multiprocessing`` on the same work, in the same run: ``make bench``.

Two workers on this machine, an embedded fleet of one host, encrypted, medians of five. The two sides take turns, so
that a noisy machine disturbs both alike; read the ratios. ``--only NAME`` runs rows whose name contains NAME.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import lab
from lab.store.link import Link
from lab.store.run import Run
from lab.store.store import Store

WORKERS = 2
ROUNDS = 5
CONTENDERS = 4


@dataclass
class Row:
    """One measurement: medians of five, and what is asked of the ratio."""

    name: str
    unit: str
    ours: float
    stdlib: float | None
    goal: str
    met: bool

    @property
    def ratio(self) -> float | None:
        return self.ours / self.stdlib if self.stdlib else None


def noop(x: Any = None) -> Any:
    return x


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def locked(value: Any, barrier: Any, n: int) -> None:
    barrier.wait()
    for _ in range(n):
        with value.get_lock():
            value.value += 1


def locked_apart(value: Any, lock: Any, barrier: Any, n: int) -> None:
    barrier.wait()
    for _ in range(n):
        with lock:
            value.value += 1


def added(value: Any, barrier: Any, n: int) -> None:
    barrier.wait()
    for _ in range(n):
        lab.atomic_add(value, 1)


def produce(queue: Any, barrier: Any, n: int) -> None:
    barrier.wait()
    for i in range(n):
        queue.put(i)


def consume(queue: Any, barrier: Any, seconds: Any, n: int) -> None:
    barrier.wait()
    begun = time.perf_counter()
    for _ in range(n):
        queue.get()
    seconds.send(time.perf_counter() - begun)


def send_many(conn: Any, barrier: Any, n: int) -> None:
    barrier.wait()
    for i in range(n):
        conn.send(i)


def ping(conn: Any, n: int) -> None:
    for _ in range(n):
        conn.send(conn.recv())


def take_turns(condition: Any, n: int) -> None:
    with condition:
        for _ in range(n):
            condition.notify()
            condition.wait()
        condition.notify()


def answer(url: str, mine: str, theirs: str, n: int) -> None:
    link = Store(url).link()
    for _ in range(n):
        move(link, mine)
        link.send([("RPUSH", theirs, b"item")])
        link.read()


def move(link: Link, source: str) -> None:
    link.send([("BLMOVE", source, f"{source}:taken", "LEFT", "RIGHT", 10), ("LPOP", f"{source}:taken")])
    assert [link.read(), link.read()] == [b"item", b"item"]


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def pool_of(ctx: Any) -> Iterator[Any]:
    pool = ctx.Pool(WORKERS)
    pool.map(noop, range(100), 1)
    try:
        yield pool
    finally:
        pool.close()
        pool.join()


def map_noops(pool: Any) -> float:
    return 10 * 20_000 / seconds(lambda: [pool.map(noop, range(20_000)) for _ in range(10)])


def separate_calls(pool: Any) -> float:
    def once() -> list[Any]:
        return [result.get() for result in [pool.apply_async(noop, (i,)) for i in range(2_000)]]

    return 5 * 2_000 / seconds(lambda: [once() for _ in range(5)])


def one_call(pool: Any) -> float:
    return statistics.median(seconds(lambda: pool.apply(noop)) for _ in range(200)) * 1e3


def cpu_items(pool: Any) -> float:
    return seconds(lambda: pool.map(spin, [0.05] * 64, 1))


def sleep_items(pool: Any) -> float:
    return seconds(lambda: pool.map(time.sleep, [0.01] * 200))


@cache
def data() -> list[bytes]:
    return [os.urandom(1_000_000) for _ in range(20)]


def megabytes(pool: Any) -> float:
    items = data()
    return 2 * len(items) / seconds(lambda: pool.map(noop, items, 1))


def many_futures(executor: Any) -> float:
    def once() -> list[Any]:
        return [future.result() for future in [executor.submit(noop, n) for n in range(10_000)]]

    return 10_000 / seconds(once)


def map_of_an_executor(executor: Any) -> float:
    return 20_000 / seconds(lambda: list(executor.map(noop, range(20_000))))


def one_future(executor: Any) -> float:
    return statistics.median(seconds(lambda: executor.submit(noop).result()) for _ in range(200)) * 1e3


def start_to_join(ctx: Any) -> float:
    def once() -> None:
        process = ctx.Process(target=noop)
        process.start()
        process.join()

    return statistics.median(seconds(once) for _ in range(10)) * 1e3


def contend(ctx: Any, target: Any, n: int, *extra: Any) -> float:
    value, barrier = ctx.Value("i", 0), ctx.Barrier(CONTENDERS + 1)
    processes = [ctx.Process(target=target, args=(value, *extra, barrier, n)) for _ in range(CONTENDERS)]
    for process in processes:
        process.start()
    barrier.wait()
    took = seconds(lambda: [process.join() for process in processes])
    assert value.value == CONTENDERS * n, value.value
    return CONTENDERS * n / took


def queue_rate(ctx: Any, n: int = 10_000) -> float:
    queue, barrier = ctx.Queue(), ctx.Barrier(3)
    results, tell = ctx.Pipe(duplex=False)
    producer = ctx.Process(target=produce, args=(queue, barrier, n))
    consumer = ctx.Process(target=consume, args=(queue, barrier, tell, n))
    producer.start()
    consumer.start()
    barrier.wait()
    took: float = results.recv()
    consumer.join()
    producer.join()
    return n / took


def one_way(ctx: Any, n: int = 5_000) -> float:
    here, there = ctx.Pipe(duplex=False)
    barrier = ctx.Barrier(2)
    process = ctx.Process(target=send_many, args=(there, barrier, n))
    process.start()
    there.close()
    barrier.wait()
    took = seconds(lambda: [here.recv() for _ in range(n)])
    process.join()
    return n / took


def ping_pong(ctx: Any) -> float:
    here, there = ctx.Pipe()
    process = ctx.Process(target=ping, args=(there, 300))
    process.start()

    def once() -> None:
        here.send(None)
        here.recv()

    times = [seconds(once) for _ in range(300)]
    process.join()
    return statistics.median(times) * 1e6


def wait_and_notify(ctx: Any, n: int = 500) -> float:
    condition = ctx.Condition()
    process = ctx.Process(target=take_turns, args=(condition, n))
    with condition:
        process.start()
        condition.wait()
    took = seconds(lambda: take_turns(condition, n - 1))
    process.join()
    return 2 * n / took


def floor(run: Run, n: int = 300) -> float:
    """What Redis itself takes to bring an item to another process and back, us, by connections that do nothing else."""
    mine, theirs = run.new_name("floor"), run.new_name("floor")
    args = (run.settings.broker_url, theirs, mine, ROUNDS * n)
    process = multiprocessing.get_context("spawn").Process(target=answer, args=args)
    process.start()
    link = run.store.link()

    def once() -> None:
        link.send([("RPUSH", theirs, b"item")])
        link.read()
        move(link, mine)

    times = [seconds(once) for _ in range(ROUNDS * n)]
    process.join()
    return statistics.median(times) * 1e6


def alternate(ours: Callable[[], float], stdlib: Callable[[], float]) -> tuple[float, float]:
    both = [(ours(), stdlib()) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in both), statistics.median(b for _, b in both)


POOL_ROWS: list[tuple[str, str, Callable[[Any], float], str, Callable[[float, float], bool]]] = [
    ("Pool.map, 20,000 no-ops", "calls/s", map_noops, "0.8 of its rate", lambda a, b: a >= 0.8 * b),
    ("Pool.apply_async, 2,000 calls", "calls/s", separate_calls, "1.0 of its rate", lambda a, b: a >= b),
    ("Pool.apply, one call", "ms", one_call, "0.6 ms", lambda a, _: a <= 0.6),
    ("64 items of 50 ms CPU", "s", cpu_items, "within 5 %", lambda a, b: a <= 1.05 * b),
    ("200 items of 10 ms sleep", "s", sleep_items, "within 5 %", lambda a, b: a <= 1.05 * b),
    ("20 items of 1 MB in and out", "MB/s", megabytes, "1.0 of its rate", lambda a, b: a >= b),
]

PRIMITIVE_ROWS: list[tuple[str, str, Callable[[Any], float], str, Callable[[float], bool]]] = [
    ("Process, start to join", "ms", start_to_join, "60 ms", lambda a: a <= 60),
    ("Value under its lock, 4 contend", "increments/s", lambda c: contend(c, locked, 1_000), "5,000",
     lambda a: a >= 5_000),
    ("Value under a Lock apart, 4 contend", "increments/s", lambda c: contend(c, locked_apart, 1_000, c.Lock()), "",
     lambda a: True),
    ("atomic add, 4 contend", "adds/s", lambda c: contend(c, added, 3_000), "20,000", lambda a: a >= 20_000),
    ("Queue, producer to consumer", "messages/s", queue_rate, "10,000", lambda a: a >= 10_000),
    ("Condition, wait and notify", "times/s", wait_and_notify, "4,000", lambda a: a >= 4_000),
    ("Pipe, one way", "messages/s", one_way, "", lambda a: True),
    ("Pipe, ping-pong", "us", ping_pong, "", lambda a: True),
]  # fmt: skip


def on_pools(cluster: Any, stdlib: Any, wanted: Callable[[str], bool]) -> Iterator[Row]:
    for name, unit, measure, goal, met in POOL_ROWS:
        if wanted(name):
            with pool_of(cluster) as a, pool_of(stdlib) as b:
                ours, theirs = alternate(lambda a=a, m=measure: m(a), lambda b=b, m=measure: m(b))  # type: ignore[misc]
            yield Row(name, unit, ours, theirs, goal, met(ours, theirs))


def on_executors(_cluster: Any, stdlib: Any, wanted: Callable[[str], bool]) -> Iterator[Row]:
    rows: list[tuple[str, str, Callable[[Any], float], str, Callable[[float, float], bool]]] = [
        ("Executor, 10,000 futures", "calls/s", many_futures, "0.8 of its rate", lambda a, b: a >= 0.8 * b),
        ("Executor.map, 20,000 no-ops", "calls/s", map_of_an_executor, "50,000", lambda a, _: a >= 50_000),
        ("Executor, one future", "ms", one_future, "1 ms", lambda a, _: a <= 1),
    ]
    for name, unit, measure, goal, met in rows:
        if wanted(name):
            with lab.get_executor("cluster", WORKERS) as a, ProcessPoolExecutor(WORKERS, stdlib) as b:
                for executor in (a, b):
                    list(executor.map(noop, range(100)))
                ours, theirs = alternate(lambda a=a, m=measure: m(a), lambda b=b, m=measure: m(b))  # type: ignore[misc]
            yield Row(name, unit, ours, theirs, goal, met(ours, theirs))


def on_primitives(cluster: Any, stdlib: Any, wanted: Callable[[str], bool]) -> Iterator[Row]:
    for name, unit, measure, goal, met in PRIMITIVE_ROWS:
        if wanted(name):
            ours, theirs = alternate(lambda m=measure: m(cluster), lambda m=measure: m(stdlib))  # type: ignore[misc]
            yield Row(name, unit, ours, theirs, goal, met(ours))


def show(row: Row) -> None:
    ratio = f"{row.ratio:8.2f}" if row.ratio else " " * 8
    mark = "" if not row.goal else ("ok  " if row.met else "MISS") + f" {row.goal}"
    print(f"{row.name:36} {row.ours:14,.2f} {row.stdlib or 0:14,.2f} {ratio}  {row.unit:13} {mark}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("CROSSHOST_HOSTS", "1")
    os.environ.setdefault("CROSSHOST_SLOTS", "8")
    cluster, stdlib = lab.get_context("cluster"), multiprocessing.get_context()
    with cluster:
        if not options.json:
            trip = cluster.round_trip() * 1e6
            print(
                f"CPython {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};", end=" "
            )
            print(f"{cluster.transport}, PING {trip:.0f} us; start method {stdlib.get_start_method()}")
            print(f"an item to another process and back, by Redis and nothing else: {floor(cluster.connect()):.0f} us")
            print(f"{'':36} {'cluster':>14} {'multiprocessing':>14} {'ratio':>8}")
        rows = []
        for part in (on_pools, on_executors, on_primitives):
            for row in part(cluster, stdlib, lambda name: options.only.lower() in name.lower()):
                rows.append(row)
                if not options.json:
                    show(row)
    if options.json:
        json.dump([asdict(row) | {"ratio": row.ratio} for row in rows], sys.stdout, indent=2)


if __name__ == "__main__":
    main()
