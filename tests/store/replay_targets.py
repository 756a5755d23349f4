"""What the processes of ``test_replays`` and ``test_rotation`` run."""

from __future__ import annotations

import signal
from typing import Any


def count_signals(ready: Any, counted: Any, go: Any) -> None:
    signal.signal(signal.SIGINT, lambda *_: counted.add(1))
    ready.set()
    go.wait()


def relay(inbox: Any, outbox: Any) -> None:
    while (item := inbox.get()) is not None:
        outbox.put((item, "relayed"))


def double(number: int) -> int:
    return 2 * number


def change(shared: Any, value: int) -> None:
    shared["key"] = value


class Counter:
    """Does not pickle, so it stays where it was made."""

    def __init__(self) -> None:
        self._steps = (n for n in range(100))

    def step(self) -> int:
        return next(self._steps)
