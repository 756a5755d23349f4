"""What runs on a host while signals come: each handler uses what the interrupted frame uses."""

from __future__ import annotations

import signal
from typing import Any

from lab.store import link
from lab.store import run as runs


def count_and_be_interrupted(rounds: int, counted: Any, handled: Any, inbox: Any, told: Any, lock: Any) -> None:
    """Count and pass items on in the main thread, while after each millisecond a handler counts, tells, locks and takes."""
    came = 0

    def handle(*_: object) -> None:
        nonlocal came
        came += 1
        handled.add(1)
        told.set()
        with lock:
            handled.value  # noqa: B018 - read, in a round trip
        assert not inbox.poll(0.001)
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # not before: handlers would interrupt each other without end

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        for _ in range(rounds):
            counted.add(1)
            counted.value = counted.value
            with counted.get_lock():
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert handled.value == came > 20, (handled.value, came)


def defer_and_be_interrupted(rounds: int, deferred: str, called: str) -> None:
    """Send what finalizers send, while after each half millisecond a handler asks; whether every answer is its own."""
    run: Any = runs.current()
    came = [0]

    def handle(*_: object) -> None:
        came.append(run.store.call("INCR", called))
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    for _ in range(rounds):
        run.store.defer("INCR", deferred)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert int(run.store.call("GET", deferred)) == rounds
    assert came == list(range(len(came)))
    assert len(came) > 20


def tell_of_sigterm(ready: Any, told: Any, inbox: Any, out: Any) -> None:
    """What services do: the handler of SIGTERM sets an event, whatever the main thread is waiting for."""
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    ready.set()
    out.put(inbox.recv())


def stop_when_told(ready: Any, stop: Any, out: Any, polls: bool) -> None:
    """The handler of SIGTERM sets the event that the main thread looks at, or waits for."""
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready.set()
    while not (stop.is_set() if polls else stop.wait()):
        pass
    out.put("stopped in order")


def take_while_interrupted(items: Any, others: Any, out: Any, many: int) -> None:
    """Take from one queue, and in the handler from another."""
    taken: list[Any] = []

    def handle(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not others.empty():
            taken.append(others.get())
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    found = [items.get() for _ in range(many)]
    signal.setitimer(signal.ITIMER_REAL, 0)
    out.put((found, taken))


class Alarm(Exception):
    """Raised wherever this process is."""


def pack_and_be_interrupted(times: int) -> None:
    """Make commands with numbers in them while a handler raises."""

    def interrupt(*_: object) -> None:
        raise Alarm

    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(times):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            while True:
                link.pack([("SET", 1, 2.5, 3, 4, 5)])
        except Alarm:
            pass
