"""Virtual time: while a program is explored, clocks and process ids are its workers' own, and no sleep takes time.

So is what goes by such an id: a signal reaches a worker, and ``os._exit`` ends one, and never the process of the explorer.
"""

from __future__ import annotations

import operator
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

EPOCH = 1_767_225_600.0
"""What ``time.time`` says at the start of every run: the same for all, so that what a program prints is."""

_WITH_EXIT = [os, sys.modules[os.name if os.name == "nt" else "posix"]]
"""The modules that have ``_exit``; ``os`` has it from the other one."""


@contextmanager
def virtual(
    worker_or_none: Callable[[], Any],
    asleep: Callable[[float], None],
    signalled: Callable[[int, int], None],
    left: Callable[[int], NoReturn],
) -> Iterator[None]:
    """Put virtual clocks in the place of the real ones; threads that are no workers still see those.

    Args:
        worker_or_none: The worker that asks; it has a ``clock`` and a ``path``.
        asleep: Lets it sleep.
        signalled: Sends a signal to a virtual id.
        left: Ends the worker that calls, with an exit code.
    """

    def clock_of(real: Callable[[], Any], scale: float, begin: float) -> Callable[[], Any]:
        def read() -> Any:
            worker = worker_or_none()
            if worker is None:
                return real()
            now = begin + worker.clock
            return int(now * scale) if scale != 1 else now

        return read

    real_sleep, real_pid, real_kill = time.sleep, os.getpid, os.kill

    def sleep(seconds: float) -> None:
        (real_sleep if worker_or_none() is None else asleep)(seconds)

    def getpid() -> int:
        worker = worker_or_none()
        return real_pid() if worker is None else pid_of(worker.path)

    def kill(pid: int, number: int) -> None:
        # The ids are virtual: a signal to one of them must never reach whichever real process has that number.
        (real_kill if worker_or_none() is None else signalled)(pid, number)

    real_exit = os._exit

    def leave(status: int) -> NoReturn:
        # Excluded: a worker is a thread of the explorer, and ends that, silently and with the exit code that it likes.
        (real_exit if worker_or_none() is None else left)(operator.index(status))
        raise AssertionError

    replaced: dict[str, Any] = {"sleep": sleep}
    for name, begin in (("time", EPOCH), ("monotonic", 0.0), ("perf_counter", 0.0)):
        replaced[name] = clock_of(getattr(time, name), 1, begin)
        replaced[f"{name}_ns"] = clock_of(getattr(time, f"{name}_ns"), 1e9, begin)
    real = {name: getattr(time, name) for name in replaced}
    state = random.getstate()
    vars(time).update(replaced)
    os.getpid, os.kill = getpid, kill
    for module in _WITH_EXIT:
        vars(module)["_exit"] = leave
    random.seed(0)
    try:
        yield
    finally:
        vars(time).update(real)
        os.getpid, os.kill = real_pid, real_kill
        for module in _WITH_EXIT:
            vars(module)["_exit"] = real_exit
        random.setstate(state)


def pid_of(path: tuple[int, ...]) -> int:
    """The process id of a worker: 1000 for the main one, 1001 for its first child; the same in every run."""
    number = 0
    for child in path:
        number = number * 100 + child
    return 1000 + number
