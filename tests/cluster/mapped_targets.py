"""What the maps of the tests call: at module level, as pickling asks for."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import threading
import time
from typing import Any

import numpy  # not in a call, which is long then

import lab
from lab.buffers import LEAST
from tests.cluster.cluster_targets import Unloadable

TIMEOUT = 30.0
ODD, MANY = 1500, 2000
"""The call that is not like the others, in the midst of short ones."""

RUN = struct.Struct("=I")
notes: Any = None
deaths: Any = None
begun: Any = None
go: Any = None


def take(path: str, *args: Any) -> None:
    """An initializer: where runs are noted down, a number, and two events."""
    global notes, deaths, begun, go
    notes = os.open(path, os.O_WRONLY | os.O_APPEND)
    deaths, begun, go = args


def count(n: int) -> int:
    os.write(notes, RUN.pack(n))  # not in Redis: that would make it long, and long ones travel alone
    return n


def where(n: int) -> int:
    count(n)
    return os.getpid()


def refuse_odd(n: int) -> int:
    if n == ODD:
        raise LookupError(f"refused {n}")  # this comment is in the traceback
    return count(n)


def leave_odd(n: int) -> int:
    if n == ODD:
        raise SystemExit(3)
    return count(n)


def unpicklable_odd(n: int) -> Any:
    count(n)
    return threading.Lock() if n == ODD else n


def unloadable_odd(n: int) -> Any:
    count(n)
    return Unloadable() if n == ODD else n


def die_odd(n: int) -> int:
    count(n)
    if n == ODD:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def exit_odd(n: int) -> int:
    count(n)
    if n == ODD:
        os._exit(1)
    return n


def wait_odd(n: int) -> int:
    """The one behind it tells that it has been run."""
    count(n)
    if n == ODD + 1:
        begun.set()
    if n == ODD and not go.wait(TIMEOUT):
        raise TimeoutError
    return n


def wait_odd_and_die_once(n: int, weight: Any) -> int:
    weight[0] += 1  # it has its own
    if weight[0] != 1:
        raise ValueError("it has what another one left behind")
    if wait_odd(n) == ODD and deaths.add(1) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def limit_odd(n: int) -> int:
    """A call in which another has a limit."""
    count(n)
    return lab.limited(time.sleep, 0.2, retries=1)(TIMEOUT) or n if n == ODD else n


def wait_first(n: int) -> int:
    if n == 0:
        begun.set()
        go.wait(TIMEOUT)
    return count(n)


def told(n: int) -> int:
    if n == 0:
        begun.set()
    return n


def length_with_one_more(things: list[int]) -> int:
    things.append(0)
    return len(things)


_same: list[int] = []


def same(_: int) -> list[int]:
    """The very same object for each call."""
    return _same


_filled = numpy.zeros(LEAST, dtype="i8")


def filled(n: int) -> Any:
    """The very same array for each call, and its contents are the call's own."""
    _filled[:] = n
    return _filled


class Unpicklable:
    """An argument that cannot be sent."""

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("made to fail while pickling")


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
