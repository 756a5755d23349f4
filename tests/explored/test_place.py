"""The explored place has multiprocessing's names, signatures, results and exceptions; and virtual time."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import posix
import queue
import random
import re
import threading
import time
from typing import Any

import pytest

import lab
from lab.explored import pace
from lab.explored.connection import wait
from lab.explored.scheduler import CannotExplore
from lab.explored.search import explore
from tests.explored.programs import together


def only_result(program: Any, **options: Any) -> str:
    """The one result of all orders of a program."""
    found = explore(program, **options)
    ((outcome, _),) = found.found.items()
    assert outcome.kind == "result", outcome
    return outcome.text


def test_it_is_a_place_beside_the_three() -> None:
    assert lab.get_context("explored").place == "explored"
    assert "explored" not in lab.PLACES


def test_its_context_has_every_name_of_a_process_context() -> None:
    ctx = lab.get_context("explored")
    names = {name for name in dir(multiprocessing.get_context("spawn")) if not name.startswith("_")}
    assert names <= set(dir(ctx))


def test_outside_an_exploration_it_says_what_to_type() -> None:
    with pytest.raises(CannotExplore, match="producer explore"):
        lab.get_context("explored").Lock()


def test_a_thread_of_the_programs_own_is_refused() -> None:
    refused = []

    def program(ctx: Any) -> None:
        lock = ctx.Lock()

        def use() -> None:
            try:
                lock.acquire()
            except CannotExplore as exc:
                refused.append(exc.message)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    explore(program)
    assert "is not one of the explored processes" in refused[0]


def test_a_sleep_takes_no_time_and_a_clock_says_that_it_did() -> None:
    def program(ctx: Any) -> int:
        began = time.monotonic()
        time.sleep(3600)
        return round(time.monotonic() - began)

    began = time.monotonic()
    assert only_result(program) == "3600"
    assert time.monotonic() - began < 60


def test_time_passes_with_what_is_received() -> None:
    def slow(end: Any) -> None:
        time.sleep(5)
        end.send("late")

    def program(ctx: Any) -> tuple[str, int]:
        mine, its = ctx.Pipe()
        child = ctx.Process(target=slow, args=(its,))
        child.start()
        return mine.recv(), round(time.monotonic())

    assert only_result(program) == "('late', 5)"


def test_a_timeout_runs_out_when_nobody_can_go_on() -> None:
    def program(ctx: Any) -> tuple[bool, int, str]:
        lock = ctx.Lock()
        lock.acquire()
        got = lock.acquire(timeout=7)
        try:
            ctx.Queue().get(timeout=2)
        except queue.Empty:
            return got, round(time.monotonic()), "Empty"
        return got, 0, ""

    assert only_result(program) == "(False, 9, 'Empty')"


def test_process_ids_and_chance_are_the_same_in_every_run() -> None:
    def show(reply: Any) -> None:
        reply.put(os.getpid())

    def program(ctx: Any) -> tuple[int, int, int, int]:
        reply = ctx.SimpleQueue()
        child = ctx.Process(target=show, args=(reply,))
        child.start()
        return os.getpid(), child.pid, reply.get(), random.randrange(1000)

    text = only_result(program)
    assert text.startswith("(1000, 1001, 1001, ")
    assert only_result(program) == text


def test_a_signal_reaches_a_process_of_the_program_or_nobody() -> None:
    def wait(event: Any) -> None:
        event.wait()

    def program(ctx: Any) -> tuple[int, bool]:
        child = ctx.Process(target=wait, args=(ctx.Event(),))
        child.start()
        os.kill(child.pid, 9)
        child.join()
        try:
            os.kill(1002, 9)
        except ProcessLookupError:
            return child.exitcode, True
        return child.exitcode, False

    assert only_result(program) == "(-9, True)"


def test_a_process_that_leaves_by_os_exit_does_nothing_more_and_holds_what_it_held() -> None:
    def leave(lock: Any, value: Any) -> None:
        with lock:
            try:
                value.value = 1
                print("in")
                os._exit(0x105)
            finally:
                print("out")
                value.value = 2

    def program(ctx: Any) -> None:
        lock, value = ctx.Lock(), ctx.Value("i", 0)
        child = ctx.Process(target=leave, args=(lock, value))
        child.start()
        child.join()
        print(value.value, child.exitcode, lock.acquire(block=False))

    assert only_result(program) == "1 5 False\nProcess-1: in\nProcess-1 exits with 5"


def test_the_main_process_that_leaves_by_os_exit_ends_the_run_at_every_point_of_the_others() -> None:
    def work(value: Any) -> None:
        value.value = 1
        print("done")

    def program(ctx: Any) -> None:
        value = ctx.Value("i", 0)
        ctx.Process(target=work, args=(value,)).start()
        try:
            posix._exit(3)
        finally:
            print("not said")

    left = "ends by os._exit(3)"
    assert {outcome.text for outcome in explore(program).found} == {left, f"Process-1: done\n{left}"}


def test_what_is_passed_is_a_copy() -> None:
    def change(items: list[int], reply: Any) -> None:
        items.append(2)
        reply.put(items)
        items.append(3)

    def program(ctx: Any) -> tuple[list[int], list[int]]:
        mine, reply = [1], ctx.Queue()
        together(ctx, (change, (mine, reply)))
        return mine, reply.get()

    assert only_result(program) == "([1], [1, 2])"


def test_a_pipe_ends_when_nobody_is_left_to_send() -> None:
    def send(end: Any) -> None:
        end.send("one")

    def program(ctx: Any) -> tuple[str, str]:
        mine, its = ctx.Pipe(duplex=False)
        child = ctx.Process(target=send, args=(its,))
        child.start()
        its.close()
        first = mine.recv()
        try:
            return first, mine.recv()
        except EOFError:
            return first, "end of file"

    assert only_result(program) == "('one', 'end of file')"


def test_wait_gives_connections_and_sentinels_that_are_ready_and_gives_up_in_virtual_time() -> None:
    def send(end: Any, go: Any) -> None:
        go.acquire()
        end.send("late")
        go.acquire()

    def program(ctx: Any) -> tuple[Any, ...]:
        (mine, its), go = ctx.Pipe(), ctx.Semaphore(0)
        child = ctx.Process(target=send, args=(its, go))
        child.start()
        both = [child.sentinel, mine]
        found = [wait(both, timeout=0), wait(both, timeout=3)]
        later = round(time.monotonic())
        go.release()
        found += [wait(both)]
        mine.recv()
        go.release()
        found += [wait(both[:1], timeout=60)]
        return found == [[], [], [mine], [child.sentinel]], later, round(time.monotonic())

    assert only_result(program) == "(True, 3, 3)"


def test_wait_takes_nothing_whose_order_is_not_known() -> None:
    with pytest.raises(CannotExplore, match="is given a int"):
        explore(lambda ctx: wait([1]))


def test_a_bounded_queue_holds_back_and_a_joinable_one_counts() -> None:
    def work(tasks: Any) -> None:
        for _ in range(2):
            tasks.get()
            tasks.task_done()

    def program(ctx: Any) -> str:
        tasks = ctx.JoinableQueue(1)
        child = ctx.Process(target=work, args=(tasks,))
        child.start()
        tasks.put(1)
        tasks.put(2)
        tasks.join()
        try:
            tasks.task_done()
        except ValueError as exc:
            return str(exc)
        return ""

    assert only_result(program) == "task_done() called too many times"


def test_exceptions_are_multiprocessings() -> None:
    def program(ctx: Any) -> list[str]:
        condition, full = ctx.Condition(), ctx.Queue(1)
        full.put(0)
        wrong: list[Any] = [
            ctx.Lock().release,
            ctx.RLock().release,
            ctx.BoundedSemaphore(1).release,
            condition.notify,
            lambda: full.put(1, block=False),
            lambda: ctx.Value("i", 0, lock=3),
            lambda: ctx.Queue().join_thread(),
        ]
        names = []
        for call in wrong:
            try:
                call()
            except Exception as exc:  # noqa: BLE001
                names.append(type(exc).__name__)
        return names

    assert only_result(program) == str(
        ["ValueError", "AssertionError", "ValueError", "AssertionError", "Full", "AttributeError", "AssertionError"]
    )


class Point(ctypes.Structure):
    """Two numbers."""

    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


def test_values_arrays_and_structures() -> None:
    def program(ctx: Any) -> tuple[Any, ...]:
        point, row, text = ctx.Value(Point, 1, 2), ctx.Array("i", [3, 4, 5]), ctx.Array("c", b"ab")
        point.x += 10
        row[-1] = 6
        row[0:2] = [7, 8]
        with row.get_lock():
            row[0] += 1
        return point.x, list(row), len(row), text.value

    assert only_result(program) == "(11, [8, 8, 6], 3, b'ab')"


def square(number: int) -> int:
    return number * number


def test_a_pool_maps_in_every_order() -> None:
    def program(ctx: Any) -> tuple[Any, ...]:
        with ctx.Pool(2) as pool:
            later = pool.apply_async(square, (5,))
            return pool.map(square, range(3), 2), sorted(pool.imap_unordered(square, [2])), later.get()

    found = explore(program, limit=60)
    assert {outcome.text for outcome in found.found} == {"([0, 1, 4], [4], 25)"}


def refused(call: Any, *args: Any) -> str:
    try:
        call(*args)
    except RuntimeError as exc:
        return str(exc).partition(" objects should only be shared between processes through inheritance")[0]
    return ""


def test_what_is_only_inherited_is_not_sent() -> None:
    def program(ctx: Any) -> list[str]:
        queue, (mine, _), pool, shared = ctx.Queue(), ctx.Pipe(), ctx.Pool(1), ctx.Manager().list()
        with pool:
            return [
                *(refused(queue.put, one) for one in (ctx.Lock(), [ctx.RLock()], ctx.Event(), ctx.Value("i", 0))),
                *(refused(mine.send, one) for one in (ctx.BoundedSemaphore(1), ctx.RawValue("i", 0), ctx.Barrier(2))),
                refused(pool.map, len, [ctx.Lock()]),
                refused(pool.apply_async(len, (ctx.Queue(),)).get),
                refused(shared.append, ctx.Condition()),
            ]

    names = ["Lock", "RLock", "Condition", "Synchronized", "BoundedSemaphore", "c_int", "Condition"]
    assert only_result(program, limit=50) == str([*names, "Lock", "Queue", "Condition"])


def test_who_waits_for_what_was_refused_is_told_with_the_reason() -> None:
    def program(ctx: Any) -> None:
        queue = ctx.Queue()
        ctx.Process(target=queue.get).start()
        queue.put(ctx.Lock())

    (outcome,) = explore(program).found
    assert outcome.kind == "deadlock"
    assert "Process-1 waits for queue (get)" in outcome.text
    assert ", after RuntimeError: Lock objects should only be shared between processes through inheritance in main" in (
        outcome.text
    )


def test_what_is_managed_and_ends_of_pipes_are_sent_and_all_of_them_inherited() -> None:
    def work(queue: Any, lock: Any, value: Any) -> None:
        end, managed, managed_lock, managed_queue = queue.get()
        with lock, managed_lock:
            managed.append(value.value)
        managed_queue.put(managed[0])
        end.send(managed_queue.get())

    def program(ctx: Any) -> int:
        queue, manager, (mine, its) = ctx.Queue(), ctx.Manager(), ctx.Pipe()
        child = ctx.Process(target=work, args=(queue, ctx.Lock(), ctx.Value("i", 7)))
        child.start()
        queue.put((its, manager.list(), manager.Lock(), manager.Queue()))
        return int(mine.recv())

    assert only_result(program) == "7"


def test_a_managed_list_in_a_dict_is_a_copy_and_so_loses_updates() -> None:
    def append(managed: Any, number: int) -> None:
        inner = managed["k"]
        inner.append(number)
        managed["k"] = inner

    def program(ctx: Any) -> int:
        with ctx.Manager() as manager:
            managed = manager.dict(k=[])
            together(ctx, *[(append, (managed, number)) for number in range(2)])
            return len(managed["k"])

    assert {outcome.text for outcome in explore(program).found} == {"1", "2"}


@pytest.mark.parametrize("where", ["main", "Process-1"])
def test_who_computes_for_ever_ends_the_exploration_and_is_named(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PATIENCE", 1.0)

    def compute(value: Any) -> None:
        value.value = 1
        while True:
            pass

    def program(ctx: Any) -> None:
        value = ctx.Value("i", 0)
        if where == "main":
            compute(value)
        together(ctx, (compute, (value,)), (compute, (value,)))

    before = threading.active_count()
    found = explore(program)
    ((outcome, runs),) = found.found.items()
    assert (outcome.kind, runs, found.complete) == ("endless", 1, False)
    line = compute.__code__.co_firstlineno + 2
    assert re.fullmatch(
        rf"{where} has computed for \d s without an operation at line ({line}|{line + 1})", outcome.text
    )
    assert threading.active_count() == before


def test_a_process_that_swallows_everything_still_ends_with_its_run() -> None:
    def stubborn(lock: Any) -> None:
        try:
            lock.acquire()
        finally:
            lock.release()

    def program(ctx: Any) -> None:
        lock = ctx.Lock()
        lock.acquire()
        together(ctx, (stubborn, (lock,)))

    before = threading.active_count()
    found = explore(program)
    assert {outcome.kind for outcome in found.found} == {"deadlock"}
    assert threading.active_count() == before
