"""Programs to explore: each takes a context, and returns its result. The classic mistakes, and the same done right."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

Program = Callable[[Any], Any]


def together(ctx: Any, *calls: tuple[Callable[..., object], Sequence[Any]]) -> list[Any]:
    """Run each call in a process, and wait for all."""
    children = [ctx.Process(target=target, args=tuple(args)) for target, args in calls]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return children


# Lost update


def add(counter: Any, times: int) -> None:
    for _ in range(times):
        counter.value += 1


def add_locked(counter: Any, times: int) -> None:
    for _ in range(times):
        with counter.get_lock():
            counter.value += 1


def add_after_a_sleep(counter: Any, number: int) -> None:
    time.sleep(number)
    counter.value += 1


def counting(workers: int, times: int, target: Callable[..., object] = add) -> Program:
    def program(ctx: Any) -> int:
        counter = ctx.Value("i", 0)
        together(ctx, *[(target, (counter, times))] * workers)
        return int(counter.value)

    return program


def counting_with_sleeps(ctx: Any) -> int:
    counter = ctx.Value("i", 0)
    together(ctx, *[(add_after_a_sleep, (counter, number)) for number in range(2)])
    return int(counter.value)


# Two locks, philosophers


def eat(left: Any, right: Any) -> None:
    with left, right:
        pass


def dining(philosophers: int, last_is_left_handed: bool) -> Program:
    def program(ctx: Any) -> str:
        forks = [ctx.Lock() for _ in range(philosophers)]
        pairs = [(forks[n], forks[(n + 1) % philosophers]) for n in range(philosophers)]
        if last_is_left_handed:
            pairs[-1] = pairs[-1][::-1]
        together(ctx, *[(eat, pair) for pair in pairs])
        return "fed"

    return program


# Lost wake-up


def wait_without_looking(condition: Any, ready: Any) -> None:
    if not ready.value:
        with condition:
            condition.wait()


def wait_and_look(condition: Any, ready: Any) -> None:
    with condition:
        while not ready.value:
            condition.wait()


def make_ready(condition: Any, ready: Any) -> None:
    with condition:
        ready.value = 1
        condition.notify()


def waking(wait: Callable[..., object]) -> Program:
    def program(ctx: Any) -> str:
        condition, ready = ctx.Condition(), ctx.Value("i", 0)
        together(ctx, (wait, (condition, ready)), (make_ready, (condition, ready)))
        return "woken"

    return program


# Bounded buffer of semaphores


def produce(buffer: Any, head: Any, room: Any, filled: Any, items: int) -> None:
    for item in range(1, items + 1):
        room.acquire()
        buffer[head.value % len(buffer)] = item
        head.value += 1
        filled.release()


def consume(buffer: Any, room: Any, filled: Any, items: int) -> None:
    for tail in range(items):
        filled.acquire()
        got = buffer[tail % len(buffer)]
        assert got == tail + 1, f"{got} instead of {tail + 1}"
        room.release()


def buffering(room_for: int, size: int = 1, items: int = 2) -> Program:
    def program(ctx: Any) -> str:
        buffer, head = ctx.RawArray("i", size), ctx.RawValue("i", 0)
        room, filled = ctx.Semaphore(room_for), ctx.Semaphore(0)
        together(ctx, (produce, (buffer, head, room, filled, items)), (consume, (buffer, room, filled, items)))
        return "in order"

    return program


# Barrier reuse: a barrier of a counter and an event, that does not let everybody out before it is used again


def meet_twice(count: Any, lock: Any, gate: Any, parties: int, phase: Any) -> None:
    for number in range(2):
        with lock:
            count.value += 1
            phase.value = max(phase.value, number + 1)
            if count.value == parties:
                count.value = 0
                gate.set()
        gate.wait()
        gate.clear()


def meet_twice_at_a_barrier(barrier: Any, counts: Any, me: int) -> None:
    for number in range(2):
        counts[me] = number + 1
        barrier.wait()
        assert min(counts[0], counts[1]) >= number + 1


def home_made_barrier(ctx: Any) -> str:
    count, phase = ctx.RawValue("i", 0), ctx.RawValue("i", 0)
    lock, gate = ctx.Lock(), ctx.Event()
    together(ctx, *[(meet_twice, (count, lock, gate, 2, phase))] * 2)
    return "met"


def real_barrier(ctx: Any) -> str:
    barrier, counts = ctx.Barrier(2), ctx.RawArray("i", 2)
    together(ctx, *[(meet_twice_at_a_barrier, (barrier, counts, me)) for me in range(2)])
    return "met"


# No progress


def spin(flag: Any) -> None:
    while not flag.value:
        pass


def set_flag(flag: Any) -> None:
    flag.value = 1


def spinning(with_setter: bool) -> Program:
    def program(ctx: Any) -> str:
        flag = ctx.Value("i", 0)
        together(ctx, (spin, (flag,)), *[(set_flag, (flag,))] * with_setter)
        return "seen"

    return program


def retry_politely(mine: Any, other: Any) -> None:
    while True:
        mine.acquire()
        if other.acquire(block=False):
            other.release()
            mine.release()
            return
        mine.release()


def retry_three_times(lock: Any) -> None:
    for _ in range(12):
        if lock.acquire(block=False):
            lock.release()
            return


def polite(ctx: Any) -> str:
    one, other = ctx.Lock(), ctx.Lock()
    together(ctx, (retry_politely, (one, other)), (retry_politely, (other, one)))
    return "done"


def gives_up(ctx: Any) -> str:
    lock = ctx.Lock()
    with lock:
        child = ctx.Process(target=retry_three_times, args=(lock,))
        child.start()
        child.join()
    return "gave up"
