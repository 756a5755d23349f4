"""The worst PING beside a program with much in Redis: ``python -m benchmarks.worst_ping``.

A PING each millisecond over a connection of its own, from a process of its own, while a run makes keys, has their expiry
renewed, closes a pipe full of messages that nobody read, buries a process that holds many locks, and ends. With each row
stand the scripts of that time that took more than 0.1 ms, by Redis' own clock (SLOWLOG): their median says what they cost,
their longest also how long Redis itself waited for a processor.

``--keys``, ``--messages`` and ``--locks`` say how many.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from lab.cluster import connection, sharedctypes
from lab.cluster.synchronize import ACQUIRE
from lab.store import run as runs
from lab.store.run import BURY, JOIN, UNFINISHED, Run
from lab.store.script import REGISTER
from lab.store.store import Store
from tests.kit.server import Server
from tests.kit.wait import until

TAKES_LONG = 100
"""Microseconds from which SLOWLOG keeps a command."""


@dataclass
class Row:
    """What was met while one thing was done; milliseconds."""

    name: str
    seconds: float
    worst_ping: float
    median: float
    nearly_all: float
    longest: float


def is_script(entry: Any) -> bool:
    """Whether an entry of SLOWLOG is a script."""
    return bool(entry["command"].startswith(b"EVALSHA"))


def ping(url: str, stop: Any, worst: Any) -> None:
    """Ping until told to stop; ``worst`` holds the longest, in milliseconds, since somebody last set it to 0."""
    client = redis.Redis.from_url(url)
    while not stop.wait(0.001):
        begun = time.perf_counter()
        client.ping()
        taken = (time.perf_counter() - begun) * 1000
        with worst.get_lock():
            worst.value = max(worst.value, taken)


class Bench:
    """A server, and somebody who pings it."""

    def __init__(self, server: Server) -> None:
        self.server, self.rows = server, list[Row]()
        ctx = multiprocessing.get_context("spawn")
        self._stop, self._worst = ctx.Event(), ctx.Value("d", 0.0)
        self._pinger = ctx.Process(target=ping, args=(server.url, self._stop, self._worst))
        self._pinger.start()
        with suppress(
            PermissionError
        ):  # on a machine that does other things, these two are measured and not the others
            os.setpriority(os.PRIO_PROCESS, self._pinger.pid or 0, -20)
            assert server.valkey
            os.setpriority(os.PRIO_PROCESS, server.valkey.pid, -20)
        until(lambda: self._worst.value, "somebody pings")
        server.client.config_set("slowlog-log-slower-than", TAKES_LONG)
        server.client.config_set("slowlog-max-len", 100_000)

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Measure what is done in the block."""
        self.server.client.slowlog_reset()
        self._worst.value = 0.0
        begun = time.perf_counter()
        yield
        seconds = time.perf_counter() - begun
        took = sorted(
            int(entry["duration"]) for entry in self.server.client.slowlog_get(100_000) if is_script(entry)
        ) or [0]
        median, nearly_all, longest = (took[int((len(took) - 1) * share)] / 1000 for share in (0.5, 0.99, 1))
        self.rows.append(Row(name, seconds, self._worst.value, median, nearly_all, longest))

    def close(self) -> None:
        """End the pinger."""
        self._stop.set()
        self._pinger.join(10)


def pipelined(run: Run, command: Callable[[int], tuple[Any, ...]], n: int) -> None:
    """Send n commands, some at once."""
    for first in range(0, n, 50):  # Redis runs what comes in one packet one after the other
        run.store.pipeline([command(i) for i in range(first, min(first + 50, n))])


def measure(server: Server, keys: int, messages: int, locks: int, watch: float) -> list[Row]:
    """All rows.

    Args:
        server: A Redis without hosts.
        keys, messages, locks: How many.
        watch: Seconds for which the keys are only renewed.
    """
    bench = Bench(server)
    try:
        run = Run.as_root(server.settings, Store(server.url, patience=20))
        with bench.row("a program with nothing"):
            time.sleep(2.0)
        with bench.row(f"{keys:,} values are made"):
            make = sharedctypes.CREATE
            pipelined(run, lambda _: run.command(make, [run.new_name("memory")], b"\0" * 8), keys)
        with bench.row(f"they are there for {watch:g} s"):
            time.sleep(watch)  # renewing goes on by itself
        reader, writer = connection.Pipe(run, duplex=False)
        message = run.seal(writer._outbox, b"\0" + b"x" * 60)
        pipelined(run, lambda _: run.command(connection.SEND, [writer._outbox], message), messages)
        with bench.row(f"a pipe with {messages:,} messages is closed"):
            reader.close()
            until(lambda: not run.store.call("SCARD", run.key("swept")), "they are deleted", 600)
        child = Run(run.settings, Store(server.url), run.id, "child")
        child.eval(JOIN, [], 3_600_000)
        run.eval(REGISTER, [run.mailbox])  # as the first child does
        names = [run.new_name("sem") for _ in range(locks)]
        pipelined(child, lambda i: child.command(ACQUIRE, [names[i]], 1, 1, f"child/{i}", 0, 0), locks)
        with bench.row(f"a process with {locks:,} locks is buried"):
            while run.eval(BURY, [run.mailbox], "child", "letter", 0, 0) == UNFINISHED:
                pass
        with bench.row("the run ends"):
            run.close()
        assert not list(server.client.scan_iter(f"{run.base}*", count=10_000)), "something is left"
    finally:
        bench.close()
    return bench.rows


def main() -> None:
    """What ``python -m benchmarks.worst_ping`` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--locks", type=int, default=100_000)
    parser.add_argument("--watch", type=float, default=30.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory)) as server:
        assert runs.current() is None
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
        print(f"{'':50} {'s':>6} {'worst PING':>12} {'scripts: median':>18} {'99 %':>8} {'longest':>9}")
        for row in measure(server, args.keys, args.messages, args.locks, args.watch):
            times = f"{row.worst_ping:9.1f} ms {row.median:15.2f} ms {row.nearly_all:5.2f} ms {row.longest:6.2f} ms"
            print(f"{row.name:50} {row.seconds:6.1f} {times}")


if __name__ == "__main__":
    main()
