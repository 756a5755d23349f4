"""What one process has seen, and how it is handed in.

Noting an event appends to a list. A thread of its own hands the list in, twenty times a second, at the end of the process,
and when it is told to end (SIGTERM): so of a process that is killed, all is there but its last moments.

On Redis: list ``trace:ID`` of the run: sealed chunks, which the program takes out as they come.
"""

from __future__ import annotations

import itertools
import marshal
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import lab
from lab.evidence import Who
from lab.fleet.hosts import kernel
from lab.store import run as runs
from lab.store.run import Run
from lab.store.script import Script
from lab.store.store import Store
from lab.trace import clock
from lab.trace.clock import now

PERIOD = 0.05
"""Seconds between two times that a process hands in what it has seen."""

HEARTBEAT = 250_000_000
"""Nanoseconds after which a process says that it is there, though nothing has happened: so its death has a time."""

SOON = 5_000_000
"""Nanoseconds between two times that it does so because a call begins: who is killed in a call has said which one."""

AT_ONCE = 0.005
"""Seconds that a call waits for that at the most."""

LEAVE = 2.0
"""Seconds that the end of a process waits for its record to be handed in."""

HAND_IN = Script("push(KEYS[3], ARGV[3]) return 1", numbered=False)  # twice is no harm: chunks have numbers

_LAB = os.path.join(os.path.dirname(os.path.abspath(lab.__file__)), "")
_STDLIB = os.path.dirname(os.path.abspath(threading.__file__))
_MACHINERY = (
    *(_LAB + part for part in ("trace/", "cluster/", "store/", "local.py", "work.py", "__init__.py", "concepts/_shared.py")),
    os.path.join(os.path.dirname(os.path.dirname(_LAB)), "worker", ""),  # which a host's own process begins in
    *(os.path.join(_STDLIB, part) for part in ("multiprocessing/", "threading.py", "contextlib.py", "concurrent/")),
)  # fmt: skip
_of_machinery: dict[str, bool] = {}

HURRY = 0.5
"""The same where it has been told to end."""

FINISH = 30.0
"""Seconds that a program which has been told to end waits for its trace to be written, unless it is told again."""

Where = tuple[str, str]
"""Where a process hands in: ``("file", folder)``, or ``("redis", key)`` of its run."""


class Sink(Protocol):
    """Takes the chunks of a process."""

    clock: clock.Reading | None

    def write(self, chunk: bytes) -> None:
        """Hand in."""


class FileSink:
    """A file in a folder of this host, for threads and processes."""

    clock: clock.Reading | None = None

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, name)

    def write(self, chunk: bytes) -> None:
        """Append, in one system call: who is killed leaves a whole chunk, or none."""
        with open(self._path, "ab", buffering=0) as file:
            file.write(len(chunk).to_bytes(8, "big") + chunk)


class RedisSink:
    """A list of the run, for the cluster; over a connection of its own, so that nobody's commands wait for it."""

    def __init__(self, run: Run, key: str) -> None:
        self._run, self._key = run, key
        self.store = Store(run.settings.broker_url, run.settings.outage)
        self.clock: clock.Reading | None = clock.read(self.store.call)

    def write(self, chunk: bytes) -> None:
        """Push it, sealed."""
        self.store.call(*self._run.command(HAND_IN, [self._key], self._run.seal(self._key, chunk)))


def sink_for(where: Where, token: int) -> Sink:
    """What takes the chunks of this process."""
    kind, place = where
    if kind == "file":
        return FileSink(place, f"{os.getpid()}-{token:x}")
    run = runs.current()
    assert run is not None
    return RedisSink(run, place)


class Recorder:
    """The record of this process; there is one.

    Attributes:
        where: Where it is handed in; None while nothing is recorded.
        home: The same in the process that is the program itself; None in its children.
        finish: What makes a trace of all records, in that process, when it is told to end.
    """

    def __init__(self) -> None:
        self.where: Where | None = None
        self.home: Where | None = None
        self.finish: Callable[[], object] | None = None
        self.token = 0
        self._begin()

    def _begin(self) -> None:
        self._events: list[tuple[Any, ...]] = []
        self._sink: Sink | None = None
        self._head: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._over = False
        # Excluded: an Event here. Its lock may be held by the frame that a signal interrupts, whose handler wakes the thread.
        self._wake: queue.SimpleQueue[queue.SimpleQueue[None] | None] = queue.SimpleQueue()
        self._flushed = self._sampled = 0
        self._me = threading.local()
        self._chunks = 0
        self._threads: set[int] = set()
        self._outage = (False, 0.0)
        self.token = secrets.randbits(32)
        self._numbers = itertools.count(self.token << 32)
        self._row = (self.token << 32) + (1 << 31)  # where rows begin, apart from single numbers
        self._reserving = threading.Lock()

    def after_fork(self) -> None:
        """A forked child records nothing until it is told to; what its parent saw, its parent hands in."""
        self.where = self.home = self.finish = None
        self._begin()

    def begin(self, where: Where) -> bool:
        """Record from now on; whether this process did not yet."""
        if self.where is not None:
            return False
        self._begin()
        self.where = where
        self._thread = threading.Thread(target=self._work, name="crosshost-trace", daemon=True)
        self._thread.start()
        return True

    def number(self) -> int:
        """A number that no other item of the run has."""
        return next(self._numbers)

    def numbers(self, count: int) -> range:
        """So many numbers in a row."""
        with self._reserving:  # excluded: two threads whose rows overlap
            first = self._row
            self._row += count
        return range(first, first + count)

    def note(self, t: int, event: str, on: str, took: int = 0, more: dict[str, Any] | None = None) -> None:
        """Enter an event of this thread, with the line of the program that brought it about."""
        if self.where is None:
            return
        try:
            me = self._me.id
        except AttributeError:  # asking the kernel each time would cost as much as all the rest
            me = self._me.id = get_thread()
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            known = _of_machinery.get(file)
            if known is None:
                known = _of_machinery[file] = file.startswith(_MACHINERY) or file.startswith("<frozen")
            if not known:
                self._events.append((t, event, me, on, file, frame.f_lineno, took, more))
                return
            frame = frame.f_back
        self._events.append((t, event, me, on, "", 0, took, more))

    def hasten(self) -> None:
        """Hand in now, or soon if that was just done, as what comes may be the last of this process."""
        if self.where is None:
            return
        if now() - self._flushed < SOON:
            self._wake.put(None)
            return
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wake.put(done)
        with suppress(queue.Empty):
            done.get(timeout=AT_ONCE)

    def close(self, patience: float = LEAVE) -> None:
        """Hand in the rest, for so many seconds at the most, and record no more."""
        thread = self._thread
        if thread is None or self.where is None:
            return
        self._over = True
        self._wake.put(None)
        thread.join(patience)
        self.where = None

    # what the thread does

    def _work(self) -> None:
        where = self.where
        assert where is not None
        with suppress(Exception):  # whatever keeps a record from being handed in is no reason to end what is recorded
            self._sink, who = sink_for(where, self.token), Who.here()
            self._head = {
                "host": who.host, "pid": who.pid, "kernel": kernel() or who.host,
                "token": self.token, "clock": self._sink.clock,
            }  # fmt: skip
            while not self._over:
                self._flush(closed=False)
                self._answer(PERIOD)
                if not self._over and (early := SOON - (now() - self._flushed)) > 0:
                    time.sleep(early / 1e9)  # calls that follow each other closely are handed in together
            self._flush(closed=True)

    def _answer(self, timeout: float) -> None:
        """Wait until somebody is in haste; who waits for it, is told when it is done."""
        waiting = []
        with suppress(queue.Empty):
            waiting.append(self._wake.get(timeout=timeout))
            while True:
                waiting.append(self._wake.get_nowait())
        if any(waiting):
            self._flush(closed=False)
        for done in waiting:
            if done is not None:
                done.put(None)

    def _flush(self, closed: bool) -> None:
        self._flushed = now()
        count = len(self._events)
        events = self._events[:count]
        del self._events[:count]  # what others have appended meanwhile stays
        self._threads.update({event[2] for event in events})
        if events or closed or self._flushed - self._sampled > HEARTBEAT:
            self._sampled = self._flushed
            events += self._samples()
        events += self._outages()
        if not events and not closed and self._chunks:
            return
        assert self._sink is not None
        head = self._head | {"chunk": self._chunks, "closed": closed}
        self._chunks += 1
        self._sink.write(marshal.dumps((head, events)))

    def _samples(self) -> list[tuple[Any, ...]]:
        found = []
        for thread in list(self._threads):
            if used := scheduled(thread):
                found.append((now(), "cpu", thread, "", "", 0, 0, {"cpu": used[0], "ready": used[1]}))
            else:
                self._threads.discard(thread)
        return found

    def _outages(self) -> list[tuple[Any, ...]]:
        run = runs.current() if self.where and self.where[0] == "redis" else None
        if run is None:
            return []
        outage, (was_on, was_over) = run.store.outage, self._outage
        is_on, over = outage.on, outage.over_at
        self._outage = is_on, over
        found = []
        if was_on and over != was_over:
            found.append((int(over * 1e9), "outage ended"))
        if is_on and not was_on:
            found.append((now(), "outage begun"))
        return [(t, event, threading.main_thread().native_id, "Redis", "", 0, 0, None) for t, event in found]


get_thread: Callable[[], int] = threading.get_native_id


def scheduled(thread: int) -> tuple[int, int] | None:
    """Nanoseconds that a thread of this process was on a core, and ready without one; None where the kernel does not say."""
    with suppress(OSError, ValueError):
        cpu, ready, _ = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
        return int(cpu), int(ready)
    return None


RECORDER = Recorder()
os.register_at_fork(after_in_child=RECORDER.after_fork)


def begin_of_thread(name: str, **more: Any) -> None:
    """Note that this thread is a process, or the one of a pool's workers, from now on."""
    RECORDER.note(now(), "started", "", 0, {"name": name, **more, **_used()})
    RECORDER.hasten()


def end_of_thread(code: int) -> None:
    """Note that what this thread did has ended."""
    RECORDER.note(now(), "ended", "", 0, {"code": code, **_used()})


def _used() -> dict[str, int]:
    used = scheduled(get_thread())
    return {"cpu": used[0], "ready": used[1]} if used else {}


def end_when_told(finish: Callable[[], object] | None = None) -> None:
    """Hand in the record when this process is told to end, and it would do so without a word.

    Args:
        finish: What makes a trace of all records, of the process that is the program itself.
    """
    RECORDER.finish = finish
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(signum: int, _frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)  # whoever sends it again does not want to wait
    end_of_thread(-signum)
    # Excluded: waiting for long for what the interrupted frame holds, such as an import. So whatever may need a lock is done
    # by another thread, and this one waits for that, and not for ever.
    if RECORDER.finish is None:
        RECORDER.close(HURRY)
    else:
        finisher = threading.Thread(target=RECORDER.finish, name="crosshost-trace-end", daemon=True)
        finisher.start()
        finisher.join(FINISH)
    os.kill(os.getpid(), signum)
