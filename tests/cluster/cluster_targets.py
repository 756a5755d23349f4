"""What the cluster tests run in other processes: module-level, as spawn asks for."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any


def nothing() -> None:
    pass


def echo(value: Any) -> Any:
    return value


def add(value: Any, amount: int) -> None:
    value.add(amount)


def write_file(path: str) -> None:
    pathlib.Path(path).write_text("executed")


def hold(lock: Any, held: Any) -> None:
    lock.acquire()
    held.set()
    time.sleep(60)  # until it is killed


def wait_for(event: Any) -> None:
    event.wait(60)


def who_am_i(_: Any) -> tuple[str, int]:
    return os.environ["CROSSHOST_HOST"], os.getpid()


def die_once(flag: Any, item: int) -> int:
    """Kill the worker that takes item 7 the first time."""
    if item == 7 and flag.add(1) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    return item


_flag: Any = None


def use_flag(flag: Any) -> None:
    global _flag
    _flag = flag


def die_once_here(item: int) -> int:
    return die_once(_flag, item)


def die_always_on_7(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def count_and_echo(item: Any) -> Any:
    _flag.add(1)
    return item


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def kill_my_forker() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # until the kernel, which kills this process with it, gets to it


def kill_my_supervisor() -> None:
    os.kill(parent_of(os.getppid()), signal.SIGKILL)
    time.sleep(60)


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def leave_a_sleeper(tell: Any) -> None:
    """Fork a process that sleeps on, holds whatever was open, and is nobody's business."""
    print("printed before the fork", flush=True)
    if pid := os.fork():
        tell.send(pid)
        return
    time.sleep(25)
    os._exit(0)


def leave_a_sleeper_in_a_call(_item: int) -> int:
    if pid := os.fork():
        return pid
    time.sleep(25)
    os._exit(0)


def write_on_demand(value: Any, ready: Any, go: Any, tell: Any) -> None:
    ready.set()
    go.wait(30)
    try:
        value.value = 666
        value.value  # noqa: B018 - the refusal of a write is raised by the next call that waits
    except Exception as exc:  # noqa: BLE001
        tell.put(type(exc).__name__)


class Unloadable:
    """Pickles, and raises where it is loaded."""

    def __reduce__(self) -> Any:
        return refuse_to_load, ()


def refuse_to_load() -> None:
    raise ValueError("made to fail while loading")


def make_unloadable(_: Any) -> Unloadable:
    return Unloadable()


class Evil:
    """Writes a file where it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return write_file, (self.path,)


def take_and_leave(lock: Any, code: int = 0) -> None:
    lock.acquire()
    sys.exit(code)


_lost: Any = None


def count_lost_in(value: Any) -> None:
    global _lost
    _lost = value


def lose_the_host(times: int) -> int:
    """Kill the forker that runs this, until so many have been killed; then return their number."""
    killed = int(_lost.value)
    if killed < times:
        _lost.value = killed + 1
        kill_my_forker()
    return killed


def add_put_and_lock(value: Any, queue: Any, lock: Any, n: int) -> None:
    for i in range(n):
        value.add(1)
        queue.put(i)
        if i % 10 == 0:
            with lock:
                pass
        time.sleep(0.002)


def die_once_with(call: tuple[int, bytes]) -> int:
    """Kill the worker that takes item 7 the first time; the size of what came with the item."""
    die_once(_flag, call[0])
    return len(call[1])


def die_with(_: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_with(call: tuple[float, bytes]) -> None:
    time.sleep(call[0])
