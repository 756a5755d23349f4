"""A handler of a signal may use what the frame that it interrupts is using: it waits for no lock of that one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.wait import until
from tests.store import signal_targets as targets


def test_a_handler_may_use_primitives_whatever_it_interrupts(cluster: Any) -> None:
    counted, handled, told, lock = cluster.Value("q", 0), cluster.Value("q", 0), cluster.Event(), cluster.Lock()
    inbox, _outbox = cluster.Pipe()
    process = cluster.Process(
        target=targets.count_and_be_interrupted, args=(2_000, counted, handled, inbox, told, lock)
    )
    process.start()
    process.join(100)
    assert process.exitcode == 0
    assert counted.value == 2_000
    assert told.is_set()


def test_the_handler_of_sigterm_may_set_an_event_whatever_the_main_thread_waits_for(cluster: Any) -> None:
    for _ in range(5):
        ready, told, out = cluster.Event(), cluster.Event(), cluster.Queue()
        inbox, outbox = cluster.Pipe(duplex=False)
        process = cluster.Process(target=targets.tell_of_sigterm, args=(ready, told, inbox, out))
        process.start()
        assert ready.wait(20)
        process.terminate()
        assert told.wait(20)
        outbox.send("stopped in order")
        assert out.get(timeout=20) == "stopped in order"
        process.join(20)
        assert process.exitcode == 0


def test_a_handler_in_the_middle_of_what_a_finalizer_sends_gets_its_own_answers(cluster: Any) -> None:
    run = cluster.connect()
    keys = [run.new_name("memory") for _ in range(2)]
    process = cluster.Process(target=targets.defer_and_be_interrupted, args=(20_000, *keys))
    process.start()
    process.join(60)
    run.store.call("UNLINK", *keys)
    assert process.exitcode == 0


@pytest.mark.parametrize("polls", [True, False])
def test_a_handler_may_set_the_event_that_its_own_thread_waits_for(cluster: Any, polls: bool) -> None:
    for _ in range(10):
        ready, stop, out = cluster.Event(), cluster.Event(), cluster.Queue()
        process = cluster.Process(target=targets.stop_when_told, args=(ready, stop, out, polls))
        process.start()
        assert ready.wait(20)
        process.terminate()
        assert out.get(timeout=20) == "stopped in order"
        process.join(20)
        assert process.exitcode == 0


def test_what_is_taken_in_a_handler_and_beneath_it_is_all_that_was_put(cluster: Any) -> None:
    many, few = 1_000, 100
    items, others, out = cluster.Queue(), cluster.Queue(), cluster.Queue()
    for n in range(few):
        others.put(n)
    until(lambda: others.qsize() == few, "all of them are there")
    process = cluster.Process(target=targets.take_while_interrupted, args=(items, others, out, many))
    process.start()
    for n in range(many):
        items.put(n)
    found, taken = out.get(timeout=60)
    process.join(20)
    assert found == list(range(many))
    assert taken
    assert taken == list(range(len(taken)))
    assert [others.get(timeout=10) for _ in range(few - len(taken))] == list(range(len(taken), few))


def test_a_handler_that_raises_while_a_command_is_made_crashes_nothing(cluster: Any) -> None:
    process = cluster.Process(target=targets.pack_and_be_interrupted, args=(300,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
