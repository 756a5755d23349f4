"""What the tests of limits call: each says that it has begun before it does what takes long."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

given: Any = None


def take(*args: Any) -> None:
    """An initializer: a Value that counts what has begun, a Value that counts what has ended, and whatever else."""
    global given
    given = args


def add(value: Any) -> int:
    """One more; how many that makes."""
    with value.get_lock():
        value.value += 1
        return int(value.value)


def square(n: int) -> int:
    return n * n


def sleep(seconds: float, *_: Any, **__: Any) -> float:
    add(given[0])
    time.sleep(seconds)
    add(given[1])
    return seconds


def keep_the_gil(seconds: int) -> int:
    """C code that nothing in Python interrupts."""
    add(given[0])
    ctypes.PyDLL(None).sleep(seconds)
    add(given[1])
    return seconds


def keep_the_gil_at_once(seconds: int) -> int:
    return int(ctypes.PyDLL(None).sleep(seconds))


def swallow(seconds: float) -> str:
    """It lets no Exception through."""
    add(given[0])
    try:
        time.sleep(seconds)
    except Exception:  # noqa: BLE001 - that is what it is about
        return "swallowed"
    return "slept"


def slow_until(n: int) -> int:
    """Late in the first n - 1 calls, and then in time."""
    count = add(given[0])
    if count < n:
        time.sleep(60)
    return count


def fail_then_late_then_well() -> int:
    count = add(given[0])
    if count == 1:
        raise LookupError("the first")
    if count == 2:
        time.sleep(60)
    return count


def refuse() -> None:
    raise LookupError(f"attempt {add(given[0])}")


def with_alarm(seconds: float) -> float:
    """It uses the alarm for itself, and takes its time."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(seconds)
    return seconds


def tally(n: int) -> int:
    """Counts its calls; the one for 0 takes for ever."""
    if n == 0:
        add(given[0])
        time.sleep(60)
    add(given[1])
    return n * n


def hold() -> None:
    with given[2]:
        add(given[0])
        time.sleep(60)


def nested(outer: float, inner: float) -> str:
    """A call of a limited function in a limited call."""
    import lab

    add(given[0])
    try:
        lab.limited(time.sleep, inner)(outer)
    except TimeoutError:
        return "the inner one"
    return "neither"


def supervisor() -> int:
    """The process that is the parent of this one's forker."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
