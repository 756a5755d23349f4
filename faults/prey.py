"""A program that uses every primitive of a fleet at once, again and again, while ``faults.keys`` writes to its keys.

It ends when a line comes on standard input, or when nothing works any more. Then it prints what each part of it did, as JSON:
how often it worked, which errors it met, and whether it has ended. An error is right; a wrong result, and a wait without end,
is not. What cannot be known is not asked for: an item that somebody took out of a queue's list looks like none that was put.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import lab
from lab.errors import LabError

BOUND = 30.0
"""Seconds in which everything has to end, or to have had an error."""

HOPELESS = 3
"""Errors in a row, after which a part gives up."""


def double(number: int) -> int:
    """Work of a moment."""
    time.sleep(0.005)
    return 2 * number


def echo_queue(source: Any, sink: Any) -> None:
    """Send on what comes."""
    while (item := source.get()) is not None:
        sink.put(item)


def echo_pipe(conn: Any) -> None:
    """Send back what comes."""
    while True:
        conn.send(conn.recv())


def count(lock: Any, value: Any, times: int) -> None:
    """Count under a lock."""
    for _ in range(times):
        with lock:
            value.value += 1


class Parts:
    """The parts of the program, each in a thread of its own.

    Args:
        ctx: The fleet's context.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self.stop = threading.Event()
        self.worked: Counter[str] = Counter()
        self.errors: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []
        self._threads: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Start them all."""
        for part in (self._pool, self._queue, self._pipe, self._locks, self._manager, self._processes, self._jobs):
            name = part.__name__.strip("_")
            self.errors[name] = Counter()
            self._threads[name] = threading.Thread(target=self._again, args=(name, part), daemon=True)
            self._threads[name].start()

    def left(self, seconds: float) -> list[str]:
        """Wait for their end; the names of those that have not come to it."""
        deadline = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    def _again(self, name: str, part: Callable[[], None]) -> None:
        in_a_row = 0
        while not self.stop.is_set() and in_a_row < HOPELESS:
            try:
                part()
            except (LabError, OSError, EOFError, ValueError, RuntimeError, queue.Empty, queue.Full) as exc:
                self.errors[name][f"{type(exc).__name__}: {str(exc).partition(chr(10))[0][:140]}"] += 1
                in_a_row += 1
            except BaseException as exc:
                self.wrong.append(f"{name}: {exc!r}")
                raise
            else:
                self.worked[name] += 1
                in_a_row = 0

    def _is(self, name: str, found: Any, right: Any) -> None:
        if found != right:
            self.wrong.append(f"{name}: {found!r} and not {right!r}")

    def _pool(self) -> None:
        with self._ctx.Pool(2) as pool:
            for _ in range(3):
                numbers = list(range(100))
                self._is("map", pool.map(double, numbers, 5), [2 * number for number in numbers])
                self._is("imap", sorted(pool.imap_unordered(double, numbers[:20])), [2 * n for n in numbers[:20]])

    def _child(self, target: Any, *args: Any) -> Any:
        child = self._ctx.Process(target=target, args=args, daemon=True)
        child.start()
        return child

    def _queue(self) -> None:
        there, back = self._ctx.Queue(5), self._ctx.Queue()
        child = self._child(echo_queue, there, back)
        try:
            seen: list[int] = []
            for number in range(50):
                there.put(number, timeout=5)
                seen.append(back.get(timeout=5))
            self._is("queue", seen, list(range(50)))
            there.put(None, timeout=5)
            child.join(5)
        finally:
            child.kill()
            child.join()

    def _pipe(self) -> None:
        ours, theirs = self._ctx.Pipe()
        child = self._child(echo_pipe, theirs)
        theirs.close()
        try:
            for number in range(50):
                ours.send(number)
                if not ours.poll(5):
                    raise queue.Empty
                self._is("pipe", ours.recv(), number)
        finally:
            ours.close()
            child.kill()
            child.join()

    def _locks(self) -> None:
        lock, value, done = self._ctx.Lock(), self._ctx.RawValue("q", 0), self._ctx.Event()
        child = self._child(count, lock, value, 50)
        try:
            count(lock, value, 50)
            child.join(20)
            done.set()
            done.wait(5)
        finally:
            child.kill()
            child.join()

    def _manager(self) -> None:
        with self._ctx.Manager() as manager:
            numbers, names, items = manager.list(), manager.dict(), manager.Queue()
            for number in range(20):
                numbers.append(number)
                names[number] = str(number)
                items.put(number)
                self._is("managed queue", items.get(timeout=5), number)
            self._is("list", list(numbers), list(range(20)))
            self._is("dict", dict(names), {number: str(number) for number in range(20)})

    def _processes(self) -> None:
        children = [self._child(double, number) for number in range(3)]
        for child in children:
            child.join()  # without a bound: this is what must not be for ever

    def _jobs(self) -> None:
        command = [
            sys.executable,
            "-m",
            "producer",
            "submit",
            "montecarlo",
            "--darts",
            "200000",
            "--streams",
            "8",
            "--wait",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
        if "Traceback" in done.stderr:
            self.wrong.append(f"jobs: {done.stderr[-400:]}")
        if done.returncode:
            raise OSError(done.stderr.splitlines()[-1] if done.stderr else str(done.returncode))


def _until_told(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def main() -> None:
    """What ``python -m faults.prey`` does."""
    begun = time.monotonic()
    ctx = lab.get_context("cluster")
    while True:
        try:
            run = ctx.connect()
            break
        except LabError:
            if time.monotonic() > begun + BOUND:
                raise
            time.sleep(0.5)  # hosts say several times a lease that they are there
    parts = Parts(ctx)
    parts.start()
    print(run.id, flush=True)
    threading.Thread(target=_until_told, args=(parts.stop,), daemon=True).start()
    while not parts.stop.is_set() and len(parts.left(0.5)) > 1:
        pass
    parts.stop.set()
    left = parts.left(BOUND + 30)
    services = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("crosshost-"))
    said = {"worked": parts.worked, "errors": parts.errors, "wrong": parts.wrong, "left": left, "services": services}
    print(json.dumps(said), flush=True)
    if left:
        os._exit(1)
    ctx.close()


if __name__ == "__main__":
    main()
