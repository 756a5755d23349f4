"""Much is sent to slow readers, through an imap, a queue, a pipe and what a child prints: nothing grows meanwhile.

python -m faults.ceiling --megabytes 50000
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

import lab

LIMIT_MB = 256
ITEM = 1_000_000
WORKERS = 2
TEXT = "x" * 999


class Peak:
    """The most memory that Redis has used, by a look ten times a second."""

    def __init__(self, ctx: Any) -> None:
        self._store = ctx.connect().store
        self.bytes = 0
        self._done = threading.Event()

    def look(self) -> None:
        """Look until it is stopped."""
        while not self._done.wait(0.1):
            info = self._store.call("INFO", "memory").decode()
            self.bytes = max(self.bytes, int(info.partition("used_memory:")[2].split()[0]))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look while the block runs."""
        thread = threading.Thread(target=self.look)
        self._done.clear()
        self.bytes = 0
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()


def handle(item: bytes, seconds: float) -> int:
    time.sleep(seconds)
    return len(item)


def read(get: Callable[[], bytes], count: int, seconds: float, total: Any) -> None:
    total.send(sum(handle(get(), seconds) for _ in range(count)))


def show(count: int) -> None:
    for _ in range(count):
        print(TEXT)


def through_imap(ctx: Any, count: int, seconds: float) -> int:
    item = os.urandom(ITEM)
    with ctx.Pool(WORKERS) as pool:
        tasks = ((item[n % 997 :], seconds) for n in range(count))
        received = sum(pool.imap_unordered(_handle, tasks))
    return int(received) + sum(n % 997 for n in range(count))


def _handle(task: tuple[bytes, float]) -> int:
    return handle(*task)


def through_queue(ctx: Any, count: int, seconds: float) -> int:
    queue = ctx.Queue()
    return _sent(ctx, queue.get, _held_back(queue), count, seconds)


def _held_back(queue: Any) -> Callable[[bytes], None]:
    """A put that waits as the queue's feeder does: what the program has put and not sent is its own memory."""

    def put(item: bytes) -> None:
        queue.put(item)
        while len(queue._buffer) > 16:
            time.sleep(0.001)

    return put


def through_pipe(ctx: Any, count: int, seconds: float) -> int:
    here, there = ctx.Pipe(duplex=False)
    return _sent(ctx, here.recv, there.send, count, seconds)


def _sent(ctx: Any, get: Any, send: Callable[[bytes], None], count: int, seconds: float) -> int:
    total, tell = ctx.Pipe(duplex=False)
    reader = ctx.Process(target=read, args=(get, count, seconds / WORKERS, tell))
    reader.start()
    item = os.urandom(ITEM)
    for _ in range(count):
        send(item)
    received = int(total.recv())
    reader.join()
    return received


def through_output(ctx: Any, count: int, seconds: float) -> int:
    """A child prints, and whoever reads the program's output is slow."""
    slow, real = _Slow(ITEM * WORKERS / seconds), sys.stdout
    sys.stdout = slow
    try:
        child = ctx.Process(target=show, args=(count * ITEM // (len(TEXT) + 1),))
        child.start()
        child.join()
    finally:
        sys.stdout = real
    return slow.bytes


class _Slow:
    """A terminal that takes so many bytes a second."""

    encoding = "utf-8"

    def __init__(self, rate: float) -> None:
        self._rate, self.bytes = rate, 0

    def write(self, text: str) -> None:
        self.bytes += len(text)
        time.sleep(len(text) / self._rate)

    def flush(self) -> None:
        pass


WAYS = {"imap": through_imap, "queue": through_queue, "pipe": through_pipe, "output": through_output}


@click.command()
@click.option("--megabytes", default=2_000, show_default=True, help="How much goes each way, in items of 1 MB.")
@click.option("--seconds", default=0.02, show_default=True, help="What an item takes a worker; there are two.")
@click.option("--way", "ways", type=click.Choice(list(WAYS)), multiple=True, default=list(WAYS), help="All of them.")
def main(megabytes: int, seconds: float, ways: tuple[str, ...]) -> None:
    failed = False
    with lab.get_context("cluster") as ctx:
        peak = Peak(ctx)
        for way in ways:
            begun = time.monotonic()
            with peak.watched():
                arrived = WAYS[way](ctx, megabytes, seconds)
            took, pace = time.monotonic() - begun, megabytes * seconds / WORKERS
            program = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
                1 << 20 if sys.platform == "darwin" else 1024
            )
            click.echo(f"{way}: {arrived / 1e6:,.0f} of {megabytes:,} MB in {took:.1f} s (the readers' pace: {pace:.1f} s); "
                       f"at most {peak.bytes / 1e6:.0f} MB in Redis, {program:.0f} MB in the program")  # fmt: skip
            failed |= arrived != megabytes * ITEM or max(peak.bytes / 1e6, program) >= LIMIT_MB
    sys.exit(failed)


if __name__ == "__main__":
    main()
