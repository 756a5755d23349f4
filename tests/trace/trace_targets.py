"""What the children of the traced programs do."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any


def add(value: Any, lock: Any, gate: Any, out: Any, times: int) -> None:
    gate.wait(60)
    for _ in range(times):
        with lock:
            value.value += 1
    out.put(times)


def answer(conn: Any) -> None:
    conn.send(conn.recv() + 1)
    conn.send_bytes(conn.recv_bytes() + b"!")
    conn.close()


def wait_for(event: Any, condition: Any, ready: Any) -> None:
    event.wait(60)
    with condition:
        ready.release()
        condition.wait(60)


def use_managed(lock: Any, shared: Any, items: Any, counted: Any, names: Any, queue: Any) -> None:
    with lock:
        shared["seen"] = shared.get("seen", 0) + 1
        items.append(shared["seen"])
        counted.value += 1
        names.last = "child"
        queue.put(len(items))


def square(number: int) -> int:
    return number * number


def power(base: int, exponent: int) -> int:
    if exponent < 0:
        raise ValueError("negative")
    return int(base**exponent)


def hold_and_die(lock: Any, held: Any) -> None:
    with lock:
        held.set()
        time.sleep(0.5)  # long enough to have handed in what it did
        os.kill(os.getpid(), signal.SIGKILL)


def die_once(number: int, deaths: Any) -> int:
    if number == 0 and deaths.add_once(1, 0):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def one_after_the_other(first: Any, second: Any, mine: Any, theirs: Any) -> None:
    with first:
        mine.set()
        theirs.wait(60)
        if second.acquire(timeout=8):
            second.release()


def make_own(reply: Any) -> None:
    reply.put("made")


def use_rlock(lock: Any) -> None:
    with lock, lock:
        pass


deaths: Any = None


def keep(counter: Any) -> None:
    global deaths
    deaths = counter


def die_in_call(number: int) -> int:
    return die_once(number, deaths)


def fill(numbers: Any, text: Any) -> None:
    """Write and read arrays without a lock, and write past the trace as a library does."""
    numbers[0] = 7
    numbers[1:3] = [8, 9]
    text.value = b"abc"
    with suppress(TypeError):  # the cluster's has no memory here
        memoryview(numbers).cast("B").cast("i")[3] = 5
