"""What the children of the contract tests run: at module level, and without pytest, which would slow them down."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from lab.evidence import Who

TIMEOUT = 30.0
"""Seconds that any wait in a test may take before it fails."""

signature: Any = None


def nothing() -> None:
    pass


def answer(reply: Any, *args: Any, **kwargs: Any) -> None:
    reply.put((args, kwargs))


def tell_pid(reply: Any) -> None:
    reply.put(os.getpid())


def leave(code: Any) -> None:
    sys.exit(code)


def fail(words: str) -> None:
    raise ValueError(words)


def say(words: str) -> None:
    print(words)


def wait_for(event: Any) -> None:
    if not event.wait(TIMEOUT):
        sys.exit(9)


def set_then_wait(first: Any, second: Any) -> None:
    first.set()
    wait_for(second)


def linger(ready: Any) -> None:
    ready.put("ready")
    time.sleep(TIMEOUT)


# Pipe


def echo(conn: Any) -> None:
    try:
        while conn.poll(TIMEOUT):
            conn.send(conn.recv())
    except EOFError:
        return
    sys.exit(9)


def echo_bytes(conn: Any) -> None:
    try:
        while conn.poll(TIMEOUT):
            conn.send_bytes(conn.recv_bytes())
    except EOFError:
        return
    sys.exit(9)


def send_all(conn: Any, values: list[Any]) -> None:
    for value in values:
        conn.send(value)


# Queues


def put_all(queue: Any, values: list[Any]) -> None:
    for value in values:
        queue.put(value)


def put_all_and_close(queue: Any, values: list[Any]) -> None:
    put_all(queue, values)
    queue.close()
    queue.join_thread()


def put_all_and_report(queue: Any, values: list[Any], report: Any) -> None:
    put_all(queue, values)
    report.put("all put")


def move(source: Any, target: Any) -> None:
    for value in iter(lambda: source.get(timeout=TIMEOUT), None):
        target.put(value)


def work_off(tasks: Any, done: Any) -> None:
    for task in iter(lambda: tasks.get(timeout=TIMEOUT), None):
        done.put(task)
        tasks.task_done()


# Synchronization


def add_slowly(value: Any, lock: Any, times: int) -> None:
    """Without the lock this loses updates: the sleep opens the window between the read and the write."""
    for _ in range(times):
        with lock:
            seen = value.value
            time.sleep(0.001)
            value.value = seen + 1


def add_with_own_lock(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def add_as_context(value: Any, times: int) -> None:
    for _ in range(times):
        with value:
            value.value += 1


def hold(lock: Any, held: Any, release: Any) -> None:
    with lock:
        held.set()
        wait_for(release)


def try_acquire(lock: Any, reply: Any, timeout: float) -> None:
    got = lock.acquire(True, timeout)
    if got:
        lock.release()
    reply.put(got)


def release(lock: Any) -> None:
    lock.release()


def visit(semaphore: Any, inside: Any, most: Any, times: int) -> None:
    """Count how many are inside at once."""
    for _ in range(times):
        with semaphore:
            with inside.get_lock():
                inside.value += 1
            time.sleep(0.002)
            with inside.get_lock(), most.get_lock():
                most.value = max(most.value, inside.value)
                inside.value -= 1


def wait_notified(condition: Any, waiting: Any, woken: Any) -> None:
    with condition:
        waiting.release()
        woken.put(condition.wait(TIMEOUT))


def wait_until(condition: Any, value: Any, wanted: int, reply: Any) -> None:
    with condition:
        reply.put(condition.wait_for(lambda: value.value >= wanted, TIMEOUT))


def meet(barrier: Any, reply: Any) -> None:
    reply.put(barrier.wait(TIMEOUT))


# Value and Array


def set_value(value: Any, new: Any) -> None:
    value.value = new


def double_all(array: Any) -> None:
    for index in range(len(array)):
        array[index] *= 2


# Pool


def square(number: int) -> int:
    return number * number


def subtract(first: int, second: int) -> int:
    return first - second


def same(value: Any) -> Any:
    return value


def refuse(number: int) -> int:
    if number == 3:
        raise ValueError("three is refused")
    return number


def unpicklable(_: Any) -> Any:
    return lambda: None


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def who(_: Any) -> Who:
    time.sleep(0.01)
    return Who.here()


def sign(text: str, counter: Any) -> None:
    global signature
    signature = text
    with counter.get_lock():
        counter.value += 1


def read_signature(_: Any) -> Any:
    return signature
