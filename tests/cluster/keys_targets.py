"""What processes do while somebody writes to their keys, and a program that uses every primitive at once."""

from __future__ import annotations

import time
from typing import Any


def echo(item: Any) -> Any:
    """The item, after a moment."""
    time.sleep(0.002)
    return item


def nap(seconds: float) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


def hold(lock: Any, held: Any, seconds: float) -> None:
    """Hold a lock for a while, and say so."""
    with lock:
        held.set()
        time.sleep(seconds)


def say_and_wait(conn: Any) -> None:
    """Say that it runs, then wait for a word."""
    conn.send("here")
    conn.recv()


def idle(seconds: float) -> None:
    """Do nothing for a while."""
    time.sleep(seconds)


class Slow:
    """Does not pickle, so it stays where it was made."""

    def __reduce__(self) -> Any:
        raise TypeError("stays here")

    def work(self, seconds: float) -> float:
        """Take a while."""
        time.sleep(seconds)
        return seconds
