"""What the executors of the tests call: at module level, as pickling asks for."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.cluster.cluster_targets import Unloadable

TIMEOUT = 30.0
given: Any = None


def take(*args: Any) -> None:
    """An initializer: what it was given is there for the calls."""
    global given
    given = args


def show(*names: Any) -> Any:
    return given


def capture(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def square(n: int) -> int:
    return n * n


def divide(a: int, b: int) -> float:
    return a / b


def refuse() -> None:
    raise LookupError("refused in the call")  # this comment is in the traceback


def leave() -> None:
    raise SystemExit(3)


def wait_given() -> bool:
    """Wait for the second event that the initializer was given, having set the first."""
    given[0].set()
    return bool(given[1].wait(TIMEOUT))


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die_once(n: int) -> int:
    """The first call to come here kills its worker; the value that the initializer was given counts the calls."""
    if given[0].add(1) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_to_prepare() -> None:
    raise LookupError("refused in the initializer")


def unloadable() -> Unloadable:
    return Unloadable()


def unpicklable() -> Any:
    return lambda: None
