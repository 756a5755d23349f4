"""A process that alone reads a queue or a pipe holds messages ahead, and nobody can tell, but by the clock."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster_targets
from tests.cluster import reader_targets as targets
from tests.kit.wait import until, within

TIMEOUT = 20
MANY = 3000


@pytest.fixture
def start(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Starts a process, which is ended with the test."""
    started: list[Any] = []

    def begin(target: Any, *args: Any) -> Any:
        process = cluster.Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join(TIMEOUT)


@pytest.fixture
def items(cluster: Any) -> Any:
    """A queue of numbers in their order, all in Redis."""
    items = cluster.Queue()
    targets.put_numbers(items, MANY)
    until(lambda: not items._sem.unsent, "all is sent")
    return items


def get_rest(items: Any, many: int) -> list[int]:
    return [items.get(timeout=TIMEOUT) for _ in range(many)]


def test_the_program_holds_some_and_who_reads_next_gets_the_next(cluster: Any, items: Any, start: Any) -> None:
    last, got = targets.get_until_some_are_held(items, 100), cluster.SimpleQueue()
    process = start(targets.get_some, items, 50, got)
    assert got.get() == list(range(last + 1, last + 51))
    assert get_rest(items, MANY - last - 51) == list(range(last + 51, MANY))
    assert not targets.held(items)
    assert items.empty()
    process.join(TIMEOUT)
    assert process.exitcode == 0


def test_others_see_what_is_held_as_not_got(cluster: Any, items: Any, start: Any) -> None:
    last = targets.get_until_some_are_held(items, 100)
    here, there = cluster.Pipe(duplex=False)
    start(targets.tell_size, items, there)
    assert here.recv() == (MANY - last - 1, False)
    assert get_rest(items, MANY - last - 1) == list(range(last + 1, MANY))


def test_its_own_count_has_what_is_held(items: Any) -> None:
    last = targets.get_until_some_are_held(items, 100)
    assert items.qsize() == MANY - last - 1
    assert not items.empty()


@pytest.mark.parametrize("least", [1, 40, 700])
def test_what_a_killed_process_had_got_is_gone_and_what_it_held_is_not(
    items: Any, start: Any, tmp_path: Path, least: int
) -> None:
    note = tmp_path / "last"
    process = start(targets.get_and_be_killed, items, least, note)
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL
    last = int(note.read_text())
    assert get_rest(items, MANY - last - 1) == list(range(last + 1, MANY))
    assert items.empty()


def test_a_process_that_ends_leaves_what_it_held(cluster: Any, items: Any, start: Any) -> None:
    last = cluster.Value("i", 0, lock=False)
    start(targets.get_and_end, items, 100, last).join(TIMEOUT)
    assert get_rest(items, MANY - last.value - 1) == list(range(last.value + 1, MANY))


@pytest.mark.parametrize("then", [cluster_targets.kill_my_forker, cluster_targets.kill_my_supervisor])
def test_nobody_gets_again_what_was_told_of_before_the_host_died(
    cluster: Any, items: Any, start: Any, then: Any
) -> None:
    last = cluster.Value("i", 0, lock=False)
    process = start(targets.get_tell_and_do, items, 200, last, then)
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL
    assert get_rest(items, MANY - last.value - 1) == list(range(last.value + 1, MANY))
    assert items.empty()


def test_a_frozen_process_keeps_others_waiting_no_longer_than_its_lease(cluster: Any, items: Any, start: Any) -> None:
    last = cluster.Value("i", -1, lock=False)
    process = start(targets.get_tell_and_wait, items, 100, last)
    until(lambda: last.value >= 0, "it holds some")
    cluster.connect()
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert items.get(timeout=3 * cluster.settings.lease) == last.value + 1
    assert time.monotonic() - begun < 2 * cluster.settings.lease
    process.join(TIMEOUT)


def test_many_readers_that_come_and_go_get_everything_once_and_each_in_order(cluster: Any, start: Any) -> None:
    items, got, dice = cluster.Queue(), cluster.SimpleQueue(), random.Random(7)
    readers = 4
    start(targets.put_numbers, items, MANY)
    processes = []
    for _ in range(readers):
        pauses = [dice.choice([0, 0, 0, 0, 0.0005, 0.003]) for _ in range(40)]
        processes.append(start(targets.get_all, items, got, pauses))
        within(0.3, lambda: False, every=0.1)  # until the first holds some
    until(items.empty, "all is got")
    for _ in range(readers):
        items.put(None)
    each = [got.get() for _ in range(readers)]
    assert sorted(itertools.chain(*each)) == list(range(MANY))
    assert all(numbers == sorted(numbers) for numbers in each)


def test_a_queue_that_the_program_drops_leaves_what_it_held_to_others(cluster: Any, items: Any, start: Any) -> None:
    got, go = cluster.SimpleQueue(), cluster.Event()
    process = start(targets.wait_and_get, go, items, 50, got)
    last = targets.get_until_some_are_held(items, 100)
    del items
    go.set()
    assert got.get() == list(range(last + 1, last + 51))
    process.join(TIMEOUT)


class Alarm(Exception):
    """Raised wherever the program is."""


@contextmanager
def taking_interrupted(ahead: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is taken to be held in this block is interrupted when Redis has done it, and before the reply is read."""
    take_held = ahead._take_held

    def interrupted(many: int) -> None:
        take_held(many)
        raise Alarm

    with monkeypatch.context() as patched:
        patched.setattr(ahead, "_take_held", interrupted)
        yield


def test_an_interrupt_costs_no_more_than_the_item_that_was_on_its_way(items: Any) -> None:
    def interrupt(_signum: int, _frame: Any) -> None:
        raise Alarm

    numbers, interrupts, dice = [-1], 0, random.Random(7)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while numbers[-1] < MANY - 1 - interrupts:
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.01))
                while numbers[-1] < MANY - 1 - interrupts:
                    numbers.append(items.get())
            except Alarm:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts
    assert {later - earlier for earlier, later in itertools.pairwise(numbers)} <= {1, 2}


# Pipe


@pytest.fixture
def ends(cluster: Any, start: Any) -> Any:
    """The reading end of a pipe, with numbers in it, all of them there, and the writing end closed."""
    reader, writer = cluster.Pipe(duplex=False)
    start(targets.send_numbers, writer, MANY).join(TIMEOUT)
    writer.close()
    return reader


def receive_until_some_are_held(end: Any) -> int:
    while (number := end.recv()) < 100 or not len(end._ahead):
        pass
    return int(number)


def test_an_end_that_nobody_else_holds_reads_all_in_order_to_its_end(ends: Any) -> None:
    last = receive_until_some_are_held(ends)
    assert ends.poll()
    assert [ends.recv() for _ in range(MANY - last - 1)] == list(range(last + 1, MANY))
    assert ends.poll()
    with pytest.raises(EOFError):
        ends.recv()


def test_an_end_that_is_handed_on_has_what_was_held(cluster: Any, ends: Any, start: Any) -> None:
    last, got = receive_until_some_are_held(ends), cluster.SimpleQueue()
    start(targets.receive_some, ends, 50, got).join(TIMEOUT)
    assert got.get() == list(range(last + 1, last + 51))
    assert [ends.recv() for _ in range(MANY - last - 51)] == list(range(last + 51, MANY))
    with pytest.raises(EOFError):
        ends.recv()


@pytest.mark.parametrize("then", ["wait", "poll", "hand on"])
def test_what_was_taken_and_not_heard_of_is_laid_back(
    cluster: Any, ends: Any, start: Any, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    last, got = receive_until_some_are_held(ends), cluster.SimpleQueue()
    while len(ends._ahead):
        last = ends.recv()
    with taking_interrupted(ends._ahead, monkeypatch), pytest.raises(Alarm):
        ends.recv()
    if then == "wait":
        assert connection.wait([ends], TIMEOUT) == [ends]
        assert [ends.recv() for _ in range(50)] == list(range(last + 1, last + 51))
    elif then == "poll":
        assert ends.poll()
        assert [ends.recv() for _ in range(MANY - last - 1)] == list(range(last + 1, MANY))
    else:
        start(targets.receive_some, ends, 50, got).join(TIMEOUT)
        assert got.get() == list(range(last + 1, last + 51))


def test_what_was_taken_and_not_heard_of_is_counted(items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    last, reader = targets.get_until_some_are_held(items, 100), items._reader.reader
    while targets.held(items):
        last = items.get()
    with taking_interrupted(reader, monkeypatch), pytest.raises(Alarm):
        items.get()
    assert items.qsize() == MANY - last - 1
    assert get_rest(items, MANY - last - 1) == list(range(last + 1, MANY))


def test_a_selector_finds_what_was_held(ends: Any) -> None:
    last = receive_until_some_are_held(ends)
    for number in range(last + 1, MANY):
        assert connection.wait([ends], TIMEOUT) == [ends]
        assert ends.recv() == number


def test_a_sender_hears_soon_that_nobody_reads(cluster: Any) -> None:
    reader, writer = cluster.Pipe(duplex=False)
    for number in range(100):
        writer.send(number)
    reader.close()
    with pytest.raises(BrokenPipeError):
        writer.send("nobody reads")
