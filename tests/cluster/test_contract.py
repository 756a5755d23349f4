"""The contract: what a multiprocessing context does, and so what each place must do.

One body of tests. ``ctx`` is every place; ``remote`` those whose children have a memory of their own; ``threads`` is
for what only threads do otherwise. ``processes`` is the stdlib itself, so a test that fails there is wrong.
"""

from __future__ import annotations

import datetime
import gc
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, util
from multiprocessing import pool as stdlib_pool
from typing import Any

import pytest

import lab
from tests.cluster import contract_targets as targets
from tests.cluster.contract_targets import TIMEOUT
from tests.kit.wait import within

SHORT = 0.1
"""Seconds of a wait that is meant to fail."""


def start(ctx: Any, target: Callable[..., object], *args: Any) -> Any:
    """A started child; a daemon, so that a failed test leaves none behind."""
    child = ctx.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def finish(*children: Any) -> None:
    """Wait until all children have ended well."""
    for child in children:
        child.join(TIMEOUT)
    assert [child.exitcode for child in children] == [0] * len(children)


def receive(conn: Any) -> Any:
    """The next object of a connection, within the time a test may take."""
    assert conn.poll(TIMEOUT)
    return conn.recv()


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within the time a test may take."""
    return within(TIMEOUT, condition, every=0.005)


def shown(read: Callable[[], str], words: str) -> str:
    """What the terminal shows by the time the words have appeared on it."""
    deadline, text = time.monotonic() + TIMEOUT, read()
    while words not in text and time.monotonic() < deadline:
        time.sleep(0.005)
        text += read()
    assert words in text
    return text


def took(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


# The context


def test_a_context_has_every_name_that_multiprocessing_has(ctx: Any) -> None:
    names = """Process Pipe Queue JoinableQueue SimpleQueue Lock RLock Semaphore BoundedSemaphore Condition Event
    Barrier Value Array RawValue RawArray Pool Manager current_process parent_process active_children cpu_count get_context
    get_start_method TimeoutError ProcessError BufferTooShort AuthenticationError"""
    assert [name for name in names.split() if not hasattr(ctx, name)] == []


def test_a_context_knows_its_place_and_is_its_own_context(ctx: Any) -> None:
    assert ctx.place in (*lab.PLACES, *lab.MORE_PLACES)
    assert ctx.get_context() is ctx
    assert ctx.cpu_count() >= 1


def test_the_main_process_is_nobodys_child(ctx: Any) -> None:
    assert ctx.current_process().name == "MainProcess"
    assert ctx.parent_process() is None


# Process


def test_a_child_runs_its_target_with_arguments_and_keywords(ctx: Any) -> None:
    reply = ctx.Queue()
    child = ctx.Process(target=targets.answer, args=(reply, 1, "two"), kwargs={"three": [3]})
    child.start()
    assert reply.get(timeout=TIMEOUT) == ((1, "two"), {"three": [3]})
    finish(child)


def test_the_exit_code_is_none_until_the_child_has_ended_and_0_after_a_return(ctx: Any) -> None:
    event = ctx.Event()
    child = ctx.Process(target=targets.wait_for, args=(event,))
    assert child.exitcode is None
    child.start()
    assert child.exitcode is None
    event.set()
    child.join(TIMEOUT)
    assert child.exitcode == 0


@pytest.mark.parametrize(("argument", "code"), [(0, 0), (3, 3), (None, 0), ("words", 1)])
def test_sys_exit_decides_the_exit_code(ctx: Any, argument: Any, code: int) -> None:
    child = start(ctx, targets.leave, argument)
    child.join(TIMEOUT)
    assert child.exitcode == code


def test_an_exception_gives_exit_code_1_and_a_traceback_on_the_terminal(ctx: Any, capfd: Any) -> None:
    child = start(ctx, targets.fail, "words of the error")
    child.join(TIMEOUT)
    assert child.exitcode == 1
    told = shown(lambda: capfd.readouterr().err, "ValueError: words of the error")
    assert "Traceback" in told
    assert "in fail" in told


def test_what_a_child_prints_appears_on_the_terminal(ctx: Any, capfd: Any) -> None:
    finish(start(ctx, targets.say, "hello from the child"))
    assert shown(lambda: capfd.readouterr().out, "hello from the child\n")


def test_a_child_is_alive_and_among_the_active_children_until_it_ends(ctx: Any) -> None:
    event = ctx.Event()
    child = ctx.Process(target=targets.wait_for, args=(event,))
    assert not child.is_alive()
    child.start()
    assert child.is_alive()
    assert child in ctx.active_children()
    event.set()
    finish(child)
    assert not child.is_alive()
    assert child not in ctx.active_children()


def test_join_gives_up_in_time(ctx: Any) -> None:
    event = ctx.Event()
    child = start(ctx, targets.wait_for, event)
    assert SHORT * 0.9 < took(lambda: child.join(SHORT)) < TIMEOUT
    assert child.is_alive()
    event.set()
    finish(child)


def test_a_process_has_the_id_that_its_child_sees(ctx: Any) -> None:
    reply = ctx.Queue()
    child = ctx.Process(target=targets.tell_pid, args=(reply,))
    assert child.pid is None
    child.start()
    assert child.pid == child.ident == reply.get(timeout=TIMEOUT)
    finish(child)


def test_a_process_has_the_name_and_the_daemon_flag_it_was_given(ctx: Any) -> None:
    child = ctx.Process(target=targets.nothing, name="ada", daemon=True)
    assert (child.name, child.daemon) == ("ada", True)
    child.daemon = False
    assert ctx.Process(target=targets.nothing).daemon is False
    child.start()
    with pytest.raises(AssertionError):
        child.daemon = True
    finish(child)


def test_a_process_starts_once_and_is_joined_after_that(ctx: Any) -> None:
    child = ctx.Process(target=targets.nothing)
    with pytest.raises(AssertionError):
        child.join()
    child.start()
    with pytest.raises(AssertionError):
        child.start()
    finish(child)


def test_a_process_closes_after_its_end_and_refuses_all_use_from_then_on(ctx: Any) -> None:
    event = ctx.Event()
    child = start(ctx, targets.wait_for, event)
    with pytest.raises(ValueError, match="running"):
        child.close()
    event.set()
    finish(child)
    child.close()
    for use in (child.is_alive, child.join, child.start, lambda: child.exitcode, lambda: child.pid):
        with pytest.raises(ValueError, match="closed"):
            use()
    child.close()


def test_the_sentinel_tells_when_a_child_has_ended(ctx: Any) -> None:
    event = ctx.Event()
    child = ctx.Process(target=targets.wait_for, args=(event,))
    with pytest.raises(ValueError, match="not started"):
        _ = child.sentinel
    child.start()
    assert connection.wait([child.sentinel], SHORT) == []
    event.set()
    assert connection.wait([child.sentinel], TIMEOUT) == [child.sentinel]
    finish(child)


@pytest.mark.parametrize(("way", "number"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)])
def test_a_killed_child_has_minus_the_signals_number(remote: Any, way: str, number: int) -> None:
    ready = remote.SimpleQueue()
    child = start(remote, targets.linger, ready)
    ready.get()
    getattr(child, way)()
    child.join(TIMEOUT)
    assert child.exitcode == -number


def test_what_the_stdlibs_logger_says_in_a_child_appears_if_it_was_asked_for(
    remote: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(util, "_log_to_stderr", True)
    logger = remote.get_logger()
    monkeypatch.setattr(logger, "level", logging.INFO)
    finish(start(remote, targets.nothing))
    shown(lambda: capfd.readouterr().err, "child process calling self.run()")


def test_processes_that_have_ended_leave_no_descriptors(remote: Any) -> None:
    def after(many: int) -> int:
        for _ in range(many):
            finish(start(remote, targets.nothing))
        gc.collect()
        return len(os.listdir("/dev/fd"))

    before = after(1)
    assert after(10) <= before + 2


def test_a_thread_refuses_to_be_killed(threads: Any) -> None:
    event = threads.Event()
    child = start(threads, targets.wait_for, event)
    for way in (child.kill, child.terminate):
        with pytest.raises(NotImplementedError, match="thread"):
            way()
    event.set()
    finish(child)


def test_an_argument_that_does_not_pickle_is_refused(remote: Any) -> None:
    child = remote.Process(target=targets.unpicklable, args=(threading.Lock(),))
    with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
        child.start()
    assert child.exitcode is None


def test_a_primitive_travels_only_to_a_new_child(remote: Any) -> None:
    with pytest.raises(RuntimeError, match=r"(?i)inheritance"):
        remote.SimpleQueue().put(remote.Lock())


def test_threads_get_the_very_object_that_was_sent(threads: Any) -> None:
    unpicklable = [lambda: None]
    reply = threads.Queue()
    finish(start(threads, targets.answer, reply, unpicklable))
    (received,), _ = reply.get(timeout=TIMEOUT)
    assert received is unpicklable


# Pipe

VALUES = [
    *(None, True, False, 0, -1, 2**70, 1.5, float("inf"), 1 + 2j, "", "text é", b"", b"\x00\xff", bytearray(b"x")),
    *((), (1, (2,)), [], [1, [2]], {}, {"a": {1: None}}, {(1, 2): "key"}, set(), {1, 2}, frozenset({3}), range(3)),
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),  # noqa: UP017  # as a program may have it
]


def test_values_return_equal_and_with_the_type_they_left_with(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    child = start(ctx, targets.echo, theirs)
    theirs.close()
    for value in VALUES:
        mine.send(value)
        back = receive(mine)
        assert back == value
        assert type(back) is type(value)
    mine.close()
    finish(child)


def test_a_large_message_passes_both_ways(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    child = start(ctx, targets.echo_bytes, theirs)
    theirs.close()
    message = bytes(range(256)) * 4096
    mine.send_bytes(message)
    assert mine.poll(TIMEOUT)
    assert mine.recv_bytes() == message
    mine.close()
    finish(child)


def test_a_one_way_pipe_goes_one_way(ctx: Any) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    writer.send("there")
    assert receive(reader) == "there"
    assert (reader.readable, reader.writable, writer.readable, writer.writable) == (True, False, False, True)
    for misuse in (lambda: reader.send(1), writer.recv, writer.poll, lambda: reader.send_bytes(b"x")):
        with pytest.raises(OSError, match="-only"):
            misuse()


def test_what_was_sent_before_the_close_arrives_and_then_end_of_file(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    theirs.send(1)
    theirs.send(2)
    theirs.close()
    assert [receive(mine), receive(mine)] == [1, 2]
    for _ in range(2):
        assert mine.poll(TIMEOUT)
        with pytest.raises(EOFError):
            mine.recv()


def test_the_end_of_a_child_closes_its_end_of_the_pipe(ctx: Any) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    child = start(ctx, targets.send_all, writer, [1, 2])
    writer.close()
    assert [receive(reader), receive(reader)] == [1, 2]
    assert reader.poll(TIMEOUT)
    with pytest.raises(EOFError):
        reader.recv()
    finish(child)


def test_sending_to_a_closed_end_is_an_error(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    theirs.close()
    with pytest.raises(BrokenPipeError):
        mine.send("nobody")


def test_a_closed_connection_refuses_all_use(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    mine.close()
    mine.close()
    assert mine.closed
    assert not theirs.closed
    for use in (lambda: mine.send(1), mine.recv, mine.poll, lambda: mine.send_bytes(b"x"), mine.recv_bytes):
        with pytest.raises(OSError, match="closed"):
            use()


def test_a_connection_is_closed_at_the_end_of_its_with_block(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    with mine as entered, theirs:
        assert entered is mine
    assert mine.closed
    assert theirs.closed


def test_poll_tells_whether_there_is_something_and_gives_up_in_time(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    assert mine.poll() is False
    assert SHORT * 0.9 < took(lambda: mine.poll(SHORT)) < TIMEOUT
    theirs.send(None)
    assert mine.poll(TIMEOUT) is True
    assert mine.poll() is True
    assert mine.recv() is None
    assert mine.poll(0) is False


def test_bytes_are_sent_in_part_and_received_with_a_limit(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    mine.send_bytes(b"0123456789", 2)
    mine.send_bytes(b"0123456789", 2, 3)
    mine.send_bytes(b"")
    assert [theirs.recv_bytes(), theirs.recv_bytes(), theirs.recv_bytes()] == [b"23456789", b"234", b""]
    for wrong in ((b"x", -1), (b"x", 2), (b"x", 0, 2), (b"x", 0, -1)):
        with pytest.raises(ValueError, match=r"offset|size"):
            mine.send_bytes(*wrong)
    with pytest.raises(ValueError, match="negative"):
        theirs.recv_bytes(-1)
    mine.send_bytes(b"too long")
    with pytest.raises(OSError, match=r"."):
        theirs.recv_bytes(3)


def test_bytes_are_received_into_a_buffer_that_is_large_enough(ctx: Any) -> None:
    mine, theirs = ctx.Pipe()
    buffer = bytearray(8)
    mine.send_bytes(b"abc")
    assert theirs.recv_bytes_into(buffer, 2) == 3
    assert bytes(buffer) == b"\0\0abc\0\0\0"
    mine.send_bytes(b"nine bytes")
    with pytest.raises(ctx.BufferTooShort) as caught:
        theirs.recv_bytes_into(buffer)
    assert caught.value.args == (b"nine bytes",)


# Queue


def test_a_queue_keeps_the_order(ctx: Any) -> None:
    items = ctx.Queue()
    child = start(ctx, targets.put_all, items, list(range(50)))
    assert [items.get(timeout=TIMEOUT) for _ in range(50)] == list(range(50))
    finish(child)


def test_what_a_child_put_is_there_after_its_end(ctx: Any) -> None:
    items = ctx.Queue()
    finish(start(ctx, targets.put_all_and_close, items, ["last words"]))
    assert items.get(timeout=TIMEOUT) == "last words"


def test_get_raises_empty_at_once_or_in_time(ctx: Any) -> None:
    items = ctx.Queue()
    for get in (
        items.get_nowait,
        lambda: items.get(False),
        lambda: items.get(timeout=0),
        lambda: items.get(timeout=-1),
    ):
        with pytest.raises(queue.Empty):
            get()
    started = time.monotonic()
    with pytest.raises(queue.Empty):
        items.get(True, SHORT)
    assert SHORT * 0.9 < time.monotonic() - started < TIMEOUT


def test_put_raises_full_at_once_or_in_time(ctx: Any) -> None:
    items = ctx.Queue(maxsize=2)
    items.put(1)
    assert not items.full()
    items.put(2)
    assert items.full()
    for wait in ({"block": False}, {"timeout": 0}, {"timeout": -1}):
        with pytest.raises(queue.Full):
            items.put(3, **wait)
    with pytest.raises(queue.Full):
        items.put_nowait(3)
    started = time.monotonic()
    with pytest.raises(queue.Full):
        items.put(3, True, SHORT)
    assert SHORT * 0.9 < time.monotonic() - started < TIMEOUT
    assert [items.get(timeout=TIMEOUT), items.get(timeout=TIMEOUT)] == [1, 2]


def test_a_queue_knows_its_size(ctx: Any) -> None:
    items = ctx.Queue()
    assert items.empty()
    items.put("one")
    assert eventually(lambda: not items.empty())
    assert items.qsize() == 1
    assert items.get(timeout=TIMEOUT) == "one"
    assert items.qsize() == 0


def test_a_bounded_queue_holds_a_fast_producer_back(ctx: Any) -> None:
    items, report = ctx.Queue(maxsize=2), ctx.Queue()
    child = start(ctx, targets.put_all_and_report, items, [1, 2, 3], report)
    assert eventually(items.full)
    with pytest.raises(queue.Empty):
        report.get(timeout=SHORT)
    assert items.get(timeout=TIMEOUT) == 1
    assert report.get(timeout=TIMEOUT) == "all put"
    assert [items.get(timeout=TIMEOUT), items.get(timeout=TIMEOUT)] == [2, 3]
    finish(child)


def test_several_producers_and_consumers_move_every_item_exactly_once(ctx: Any) -> None:
    source, target = ctx.Queue(), ctx.Queue()
    consumers = [start(ctx, targets.move, source, target) for _ in range(2)]
    finish(*[start(ctx, targets.put_all, source, list(range(first, first + 50))) for first in (0, 50)])
    for _ in consumers:
        source.put(None)
    assert sorted(target.get(timeout=TIMEOUT) for _ in range(100)) == list(range(100))
    finish(*consumers)
    assert target.empty()


class PickledWhenAllIsPut:
    """Holds up the thread of a queue that pickles it until the event is set."""

    def __init__(self, all_is_put: threading.Event) -> None:
        self.all_is_put = all_is_put

    def __reduce__(self) -> Any:
        self.all_is_put.wait(TIMEOUT)
        return str, ("slow",)


def test_what_does_not_pickle_holds_up_nothing_that_was_put_with_it(
    remote: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    items, all_is_put = remote.Queue(), threading.Event()
    for item in (PickledWhenAllIsPut(all_is_put), 1, 2, (n for n in range(0))):
        items.put(item)
    all_is_put.set()
    assert [items.get(timeout=TIMEOUT) for _ in range(3)] == ["slow", 1, 2]
    assert eventually(lambda: bool(items.qsize() == 0))
    items.put("next")
    assert items.get(timeout=TIMEOUT) == "next"
    items.close()
    items.join_thread()
    assert "pickle" in capfd.readouterr().err


def test_what_is_put_first_does_not_wait_for_the_pickling_of_what_comes_next(remote: Any) -> None:
    items, got_first = remote.Queue(), threading.Event()
    items.put("first")
    items.put(PickledWhenAllIsPut(got_first))
    assert items.get(timeout=TIMEOUT) == "first"
    got_first.set()
    assert items.get(timeout=TIMEOUT) == "slow"


def test_a_queue_that_is_dropped_ends_its_thread(remote: Any) -> None:
    before = threading.active_count()
    for _ in range(3):
        items = remote.Queue()
        items.put(1)
        assert items.get(timeout=TIMEOUT) == 1
        del items
    gc.collect()
    assert eventually(lambda: threading.active_count() <= before)


def test_a_closed_queue_refuses_put_and_get(ctx: Any) -> None:
    items = ctx.Queue()
    items.close()
    items.join_thread()
    for use in (lambda: items.put(1), lambda: items.get(timeout=SHORT), items.get_nowait):
        with pytest.raises(ValueError, match="closed"):
            use()
    items.close()


def test_a_child_closes_a_queue_for_itself_only(ctx: Any) -> None:
    items = ctx.Queue()
    finish(start(ctx, targets.put_all_and_close, items, [1]))
    items.put(2)
    assert sorted([items.get(timeout=TIMEOUT), items.get(timeout=TIMEOUT)]) == [1, 2]


def test_a_joinable_queue_waits_until_every_task_is_done(ctx: Any) -> None:
    tasks, done = ctx.JoinableQueue(), ctx.Queue()
    workers = [start(ctx, targets.work_off, tasks, done) for _ in range(2)]
    for task in range(10):
        tasks.put(task)
    waiter = threading.Thread(target=tasks.join, daemon=True)
    waiter.start()
    waiter.join(TIMEOUT)
    assert not waiter.is_alive()
    assert sorted(done.get(timeout=TIMEOUT) for _ in range(10)) == list(range(10))
    for _ in workers:
        tasks.put(None)
    finish(*workers)


def test_one_task_done_too_many_is_an_error(ctx: Any) -> None:
    tasks = ctx.JoinableQueue()
    tasks.put(1)
    tasks.get(timeout=TIMEOUT)
    tasks.task_done()
    with pytest.raises(ValueError, match="too many"):
        tasks.task_done()


def test_a_simple_queue_carries_objects_between_children(ctx: Any) -> None:
    items = ctx.SimpleQueue()
    assert items.empty()
    child = start(ctx, targets.put_all, items, ["one", ("two",)])
    assert eventually(lambda: not items.empty())
    assert [items.get(), items.get()] == ["one", ("two",)]
    assert items.empty()
    finish(child)


def test_a_closed_simple_queue_refuses_put_and_get(ctx: Any) -> None:
    items = ctx.SimpleQueue()
    items.close()
    for use in (lambda: items.put(1), items.get, items.empty):
        with pytest.raises(OSError, match="closed"):
            use()


# Lock, RLock, semaphores


def test_a_lock_excludes_all_other_children(ctx: Any) -> None:
    value, lock = ctx.Value("i", 0), ctx.Lock()
    finish(*[start(ctx, targets.add_slowly, value, lock, 20) for _ in range(3)])
    assert value.value == 60


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_held_by_a_child_is_not_to_be_had_here(ctx: Any, kind: str) -> None:
    lock, held, release = getattr(ctx, kind)(), ctx.Event(), ctx.Event()
    child = start(ctx, targets.hold, lock, held, release)
    assert held.wait(TIMEOUT)
    assert lock.acquire(False) is False
    assert lock.acquire(block=False) is False
    assert lock.acquire(timeout=-1) is False
    assert SHORT * 0.9 < took(lambda: lock.acquire(True, SHORT)) < TIMEOUT
    release.set()
    assert lock.acquire(timeout=TIMEOUT) is True
    lock.release()
    finish(child)


def test_a_lock_is_not_reentrant_and_anyone_may_release_it(ctx: Any) -> None:
    lock = ctx.Lock()
    with lock as entered:
        assert entered is True
        assert lock.acquire(timeout=SHORT) is False
    assert lock.acquire() is True
    finish(start(ctx, targets.release, lock))
    assert lock.acquire(timeout=TIMEOUT) is True
    lock.release()


def test_releasing_an_unlocked_lock_is_a_value_error(ctx: Any) -> None:
    lock = ctx.Lock()
    with pytest.raises(ValueError, match=r"."):
        lock.release()
    assert lock.acquire(timeout=TIMEOUT)


def test_an_rlock_is_free_only_when_released_as_often_as_acquired(ctx: Any) -> None:
    lock, reply = ctx.RLock(), ctx.Queue()
    assert lock.acquire()
    assert lock.acquire(False)
    lock.release()
    finish(start(ctx, targets.try_acquire, lock, reply, SHORT))
    assert reply.get(timeout=TIMEOUT) is False
    lock.release()
    finish(start(ctx, targets.try_acquire, lock, reply, TIMEOUT))
    assert reply.get(timeout=TIMEOUT) is True


def test_releasing_an_rlock_that_is_not_ones_own_is_an_assertion_error(ctx: Any) -> None:
    lock, held, release = ctx.RLock(), ctx.Event(), ctx.Event()
    with pytest.raises(AssertionError):
        lock.release()
    child = start(ctx, targets.hold, lock, held, release)
    assert held.wait(TIMEOUT)
    with pytest.raises(AssertionError):
        lock.release()
    release.set()
    finish(child)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_semaphore_lets_in_as_many_as_its_value(ctx: Any, kind: str) -> None:
    semaphore = getattr(ctx, kind)(2)
    assert semaphore.acquire()
    assert semaphore.acquire(True, SHORT)
    assert semaphore.acquire(False) is False
    assert SHORT * 0.9 < took(lambda: semaphore.acquire(timeout=SHORT)) < TIMEOUT
    finish(start(ctx, targets.release, semaphore))
    assert semaphore.acquire(timeout=TIMEOUT)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_semaphore_has_a_whole_number_of_places(remote: Any, kind: str) -> None:
    for value, refused in ((1.5, TypeError), ("1", TypeError), (-1, (ValueError, OSError))):
        with pytest.raises(refused):
            getattr(remote, kind)(value)
    assert getattr(remote, kind)(True).acquire(False)


def test_no_more_children_are_inside_than_a_semaphore_lets_in(ctx: Any) -> None:
    semaphore, inside, most = ctx.Semaphore(2), ctx.Value("i", 0), ctx.Value("i", 0)
    finish(*[start(ctx, targets.visit, semaphore, inside, most, 10) for _ in range(4)])
    assert 1 <= most.value <= 2
    assert inside.value == 0


def test_only_a_bounded_semaphore_minds_one_release_too_many(ctx: Any) -> None:
    free, bounded = ctx.Semaphore(1), ctx.BoundedSemaphore(1)
    free.release()
    assert [free.acquire(False), free.acquire(False), free.acquire(False)] == [True, True, False]
    with pytest.raises(ValueError, match=r"."):
        bounded.release()


# Condition, Event, Barrier


def test_notify_wakes_as_many_as_it_says(ctx: Any) -> None:
    condition, waiting, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Queue()
    children = [start(ctx, targets.wait_notified, condition, waiting, woken) for _ in range(3)]
    for _ in children:
        assert waiting.acquire(timeout=TIMEOUT)
    with condition:  # each child has let go of the lock only by waiting: all three wait now
        condition.notify(1)
    assert woken.get(timeout=TIMEOUT) is True
    with pytest.raises(queue.Empty):
        woken.get(timeout=SHORT)
    with condition:
        condition.notify_all()
    assert [woken.get(timeout=TIMEOUT), woken.get(timeout=TIMEOUT)] == [True, True]
    finish(*children)


def test_wait_for_waits_until_its_condition_holds(ctx: Any) -> None:
    condition, value, reply = ctx.Condition(), ctx.Value("i", 0), ctx.Queue()
    child = start(ctx, targets.wait_until, condition, value, 3, reply)
    for _ in range(3):
        with condition:
            value.value += 1
            condition.notify_all()
    assert reply.get(timeout=TIMEOUT) is True
    finish(child)


def test_a_condition_wait_gives_up_in_time(ctx: Any) -> None:
    condition = ctx.Condition(ctx.Lock())
    with condition:
        assert condition.wait(SHORT) is False
        assert condition.wait_for(lambda: False, SHORT) is False
        assert condition.wait_for(lambda: "at once", SHORT) == "at once"


def test_a_condition_wants_its_lock_held(ctx: Any) -> None:
    condition = ctx.Condition()
    for use in (lambda: condition.wait(SHORT), condition.notify, condition.notify_all):
        with pytest.raises(AssertionError):
            use()


def test_an_event_wakes_all_that_wait_and_stays_set(ctx: Any) -> None:
    event = ctx.Event()
    children = [start(ctx, targets.wait_for, event) for _ in range(2)]
    assert not event.is_set()
    assert event.wait(SHORT) is False
    event.set()
    assert event.is_set()
    assert event.wait(TIMEOUT) is True
    finish(*children)
    event.clear()
    assert not event.is_set()
    assert event.wait(0) is False


def test_a_child_sets_an_event_for_all(ctx: Any) -> None:
    first, second = ctx.Event(), ctx.Event()
    child = start(ctx, targets.set_then_wait, first, second)
    assert first.wait(TIMEOUT)
    second.set()
    finish(child)


def test_a_barrier_opens_when_all_have_come(ctx: Any) -> None:
    barrier, reply = ctx.Barrier(3), ctx.Queue()
    children = [start(ctx, targets.meet, barrier, reply) for _ in range(2)]
    with pytest.raises(queue.Empty):
        reply.get(timeout=SHORT)
    places = [barrier.wait(TIMEOUT), reply.get(timeout=TIMEOUT), reply.get(timeout=TIMEOUT)]
    assert sorted(places) == [0, 1, 2]
    finish(*children)
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_a_barrier_breaks_when_one_does_not_come_and_can_be_reset(ctx: Any) -> None:
    barrier = ctx.Barrier(2)
    for _ in range(2):
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(SHORT)
        assert barrier.broken
    barrier.reset()
    assert not barrier.broken
    barrier.abort()
    assert barrier.broken


# Value, Array


def test_a_value_is_one_for_all_children(ctx: Any) -> None:
    value = ctx.Value("d", 1.5)
    assert value.value == 1.5
    finish(start(ctx, targets.set_value, value, 2.25))
    assert value.value == 2.25


@pytest.mark.parametrize(
    ("code", "stored", "read"),
    [
        ("b", 200, -56),
        ("H", -1, 65535),
        ("i", 2**31, -(2**31)),
        ("q", 2**63, -(2**63)),
        ("d", 3, 3.0),
        ("c", b"x", b"x"),
    ],
)
def test_a_value_has_the_range_of_its_c_type(ctx: Any, code: str, stored: Any, read: Any) -> None:
    value = ctx.Value(code)
    value.value = stored
    assert value.value == read
    assert type(value.value) is type(read)


def test_a_value_starts_at_zero_and_refuses_another_type(ctx: Any) -> None:
    value = ctx.Value("i")
    assert value.value == 0
    with pytest.raises(TypeError):
        value.value = "one"
    with pytest.raises(TypeError):
        value.value = 1.5
    with pytest.raises(TypeError):
        ctx.Value("i", "one")
    assert value.value == 0


@pytest.mark.parametrize("target", [targets.add_with_own_lock, targets.add_as_context])
def test_a_values_own_lock_saves_every_increment(ctx: Any, target: Callable[..., None]) -> None:
    value = ctx.Value("i", 0)
    finish(*[start(ctx, target, value, 50) for _ in range(3)])
    assert value.value == 150


def test_a_value_takes_the_lock_it_is_given_or_none(ctx: Any) -> None:
    lock = ctx.Lock()
    assert ctx.Value("i", 1, lock=lock).get_lock() is lock
    assert ctx.Value("i", 7).get_obj().value == 7
    bare = ctx.Value("i", 5, lock=False)
    assert bare.value == 5
    assert not hasattr(bare, "get_lock")
    assert ctx.RawValue("i", 6).value == 6
    with pytest.raises(AttributeError):
        ctx.Value("i", 1, lock="no lock")


def test_an_array_is_one_for_all_children(ctx: Any) -> None:
    array = ctx.Array("i", [1, 2, 3])
    finish(start(ctx, targets.double_all, array))
    assert list(array) == [2, 4, 6]


def test_an_array_is_read_and_written_like_a_list_of_fixed_length(ctx: Any) -> None:
    array = ctx.Array("q", 4)
    assert len(array) == 4
    assert array[:] == [0, 0, 0, 0]
    array[1] = 10
    array[-1] = 40
    array[2:4] = [20, 30]
    assert array[:] == [0, 10, 20, 30]
    assert array[1:3] == [10, 20]
    with array.get_lock():
        array[0] += 5
    assert list(array) == [5, 10, 20, 30]
    with pytest.raises(IndexError):
        _ = array[4]
    with pytest.raises(TypeError):
        array[0] = "one"
    with pytest.raises(ValueError, match=r"."):
        array[0:2] = [1, 2, 3]


def test_an_array_of_characters_is_a_string(ctx: Any) -> None:
    array = ctx.Array("c", b"abcde")
    assert array.value == b"abcde"
    array.value = b"xy"
    assert array.value == b"xy"
    assert len(array) == 5


def test_a_bare_array_has_no_lock(ctx: Any) -> None:
    for bare in (ctx.Array("d", [1.5, 2.5], lock=False), ctx.RawArray("d", [1.5, 2.5])):
        assert list(bare) == [1.5, 2.5]
        assert not hasattr(bare, "get_lock")


# Pool


@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_map_keeps_the_order_whatever_the_chunks(ctx: Any, chunksize: int | None) -> None:
    with ctx.Pool(2) as pool:
        assert pool.map_async(targets.square, range(20), chunksize).get(TIMEOUT) == [i * i for i in range(20)]
        assert pool.map_async(targets.square, []).get(TIMEOUT) == []


def test_apply_starmap_and_their_async_forms_agree(ctx: Any) -> None:
    pairs = [(5, 3), (1, 9)]
    with ctx.Pool(2) as pool:
        assert pool.apply(targets.subtract, (5, 3)) == 2
        assert pool.apply_async(targets.subtract, (5,), {"second": 4}).get(TIMEOUT) == 1
        assert pool.map(targets.square, [1, 2]) == [1, 4]
        assert pool.starmap(targets.subtract, pairs) == [2, -8]
        assert pool.starmap_async(targets.subtract, pairs).get(TIMEOUT) == [2, -8]


def test_imap_keeps_the_order_and_imap_unordered_keeps_the_items(ctx: Any) -> None:
    with ctx.Pool(2) as pool:
        ordered = pool.imap(targets.square, range(20))
        assert [ordered.next(TIMEOUT) for _ in range(20)] == [i * i for i in range(20)]
        with pytest.raises(StopIteration):
            ordered.next(TIMEOUT)
        unordered = pool.imap_unordered(targets.square, range(20), chunksize=3)
        assert sorted(unordered) == sorted(i * i for i in range(20))


def test_values_pass_a_pool_with_the_type_they_have(ctx: Any) -> None:
    with ctx.Pool(2) as pool:
        back = pool.map_async(targets.same, VALUES).get(TIMEOUT)
    assert back == VALUES
    assert list(map(type, back)) == list(map(type, VALUES))


def test_callbacks_get_the_result_or_the_error(ctx: Any) -> None:
    results: queue.Queue[Any] = queue.Queue()
    with ctx.Pool(1) as pool:
        pool.apply_async(targets.square, (3,), callback=results.put, error_callback=results.put)
        assert results.get(timeout=TIMEOUT) == 9
        pool.apply_async(targets.refuse, (3,), callback=results.put, error_callback=results.put)
        error = results.get(timeout=TIMEOUT)
        assert isinstance(error, ValueError)
        pool.map_async(targets.square, [1, 2], callback=results.put)
        assert results.get(timeout=TIMEOUT) == [1, 4]


def test_an_exception_comes_back_with_its_type_and_its_words(ctx: Any) -> None:
    with ctx.Pool(2) as pool:
        for call in (
            lambda: pool.apply_async(targets.refuse, (3,)).get(TIMEOUT),
            lambda: pool.map_async(targets.refuse, range(5)).get(TIMEOUT),
            lambda: list(pool.imap(targets.refuse, range(5))),
        ):
            with pytest.raises(ValueError, match="three is refused"):
                call()
        assert pool.apply_async(targets.refuse, (4,)).get(TIMEOUT) == 4


def test_an_exception_brings_the_traceback_of_the_worker(remote: Any) -> None:
    with remote.Pool(1) as pool, pytest.raises(ValueError, match="three") as caught:
        pool.apply_async(targets.refuse, (3,)).get(TIMEOUT)
    assert type(caught.value.__cause__).__name__ == "RemoteTraceback"
    assert "in refuse" in str(caught.value.__cause__)


def test_a_result_that_does_not_pickle_costs_its_own_call_only(remote: Any) -> None:
    with remote.Pool(1) as pool:
        with pytest.raises(vars(stdlib_pool)["MaybeEncodingError"]):
            pool.apply_async(targets.unpicklable, (1,)).get(TIMEOUT)
        assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


def test_a_call_that_does_not_pickle_is_refused(remote: Any) -> None:
    with remote.Pool(1) as pool:
        with pytest.raises(TypeError, match=r"cannot pickle 'generator' object"):
            pool.apply_async(targets.square, ((n for n in range(0)),)).get(TIMEOUT)
        assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


def test_a_result_that_is_not_there_in_time_is_a_timeout_error(ctx: Any) -> None:
    with ctx.Pool(1) as pool:
        answer = pool.apply_async(targets.nap, (0.5,))
        assert not answer.ready()
        with pytest.raises(ValueError, match="not ready"):
            answer.successful()
        with pytest.raises(ctx.TimeoutError):
            answer.get(SHORT)
        assert answer.get(TIMEOUT) == 0.5
        assert answer.ready()
        assert answer.successful()


def test_the_initializer_runs_once_in_each_worker(ctx: Any) -> None:
    counter = ctx.Value("i", 0)
    with ctx.Pool(2, initializer=targets.sign, initargs=("signed", counter)) as pool:
        assert pool.map_async(targets.read_signature, range(8), 1).get(TIMEOUT) == ["signed"] * 8
        assert eventually(lambda: counter.value == 2)


def test_a_worker_is_replaced_after_its_number_of_tasks(ctx: Any) -> None:
    with ctx.Pool(2, maxtasksperchild=1) as pool:
        assert len(set(pool.map_async(targets.who, range(6), 1).get(TIMEOUT))) == 6


def test_two_workers_share_the_work(ctx: Any) -> None:
    with ctx.Pool(2) as pool:
        assert eventually(lambda: len(set(pool.map_async(targets.who, range(8), 1).get(TIMEOUT))) == 2)


def test_a_closed_pool_finishes_its_work_and_takes_no_more(ctx: Any) -> None:
    pool = ctx.Pool(2)
    answer = pool.map_async(targets.nap, [0.01] * 10, 1)
    with pytest.raises(ValueError, match="running"):
        pool.join()
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.apply_async(targets.square, (1,))
    pool.join()
    assert answer.get(0) == [0.01] * 10


def test_a_terminated_pool_leaves_its_work_undone(ctx: Any) -> None:
    pool = ctx.Pool(2)
    pool.map_async(targets.nap, [0.3] * 200, 1)

    def stop() -> None:
        pool.terminate()
        pool.join()

    assert took(stop) < 15  # the work would take 30


def test_a_pool_refuses_wrong_arguments(ctx: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ctx.Pool(0)
    with pytest.raises(TypeError, match="callable"):
        ctx.Pool(1, initializer="no function")
    with pytest.raises(ValueError, match="maxtasksperchild"):
        ctx.Pool(1, maxtasksperchild=0)
