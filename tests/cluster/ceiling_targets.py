"""What the children of the tests of the ceiling run."""

from __future__ import annotations

import time
from typing import Any


def forward(get: Any, send: Any, count: int, pause: float) -> None:
    """Pass on what each item begins with."""
    for _ in range(count):
        send(bytes(get()[:4]))
        time.sleep(pause)


def put_many(put: Any, name: bytes, count: int, size: int) -> None:
    """Put items that begin with a name and a number."""
    for n in range(count):
        put(name + bytes([n]) + bytes(size))


def hold(_conn: Any, seconds: float) -> None:
    """Hold an end of a pipe, and read nothing."""
    time.sleep(seconds)


def length(item: bytes) -> int:
    """Of an item that takes some time."""
    time.sleep(0.005)
    return len(item)


def make(size: int) -> bytes:
    """Something large out of something small."""
    return bytes(size)


def echo(item: bytes) -> bytes:
    return item


def add(value: Any, lock: Any, count: int) -> None:
    """Add one, so many times."""
    for _ in range(count):
        with lock:
            value.value += 1
        time.sleep(0.01)
