"""Large messages, laid down beside their lists: each arrives, none is left behind, none can be exchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.errors import BrokerUnreachable, WorkerLost, WrongKey
from lab.store.claimcheck import SMALL, check_in, check_out, luggage_of, receive, sealed
from tests.cluster import cluster_targets as targets
from tests.kit.wait import until

LARGE = os.urandom(SMALL + 1)

Lying = Callable[[], set[bytes]]


@pytest.fixture
def lying(cluster: Any) -> Lying:
    """The messages of this test that lie in Redis now, or of which their run still knows."""
    run = cluster.connect()

    def found() -> set[bytes]:
        run.store.settle()
        keys = set(run.store.call("KEYS", run.key("luggage", "*")))
        assert -1 not in [run.store.call("PTTL", key) for key in keys]  # which is what it says of a key without expiry
        keys |= {key for key in run.store.call("SMEMBERS", run.key("keys")) if b":luggage:" in key}
        return keys - before

    before = set[bytes]()
    before = found()
    return found


def through_queue(cluster: Any, value: Any) -> Any:
    queue = cluster.Queue()
    queue.put(value)
    return queue.get(timeout=10)


def through_simple_queue(cluster: Any, value: Any) -> Any:
    queue = cluster.SimpleQueue()
    queue.put(value)
    return queue.get()


def through_pipe(cluster: Any, value: Any) -> Any:
    here, there = cluster.Pipe()
    here.send(value)
    return there.recv()


def through_managed_queue(cluster: Any, value: Any) -> Any:
    with cluster.Manager() as manager:
        queue = manager.Queue()
        queue.put(value)
        return queue.get(timeout=10)


def through_pool(cluster: Any, value: Any) -> Any:
    with cluster.Pool(2) as pool:
        return pool.map(targets.echo, [value] * 4)[3]


WAYS = (through_queue, through_simple_queue, through_managed_queue, through_pipe, through_pool)


@pytest.mark.parametrize("size", [SMALL - 100, SMALL + 1, 5_000_000])
@pytest.mark.parametrize("way", WAYS)
def test_a_message_of_any_size_arrives_and_leaves_nothing_behind(
    cluster: Any, lying: Lying, way: Any, size: int
) -> None:
    value = os.urandom(size)
    assert way(cluster, value) == value
    until(lambda: not lying(), "nothing lies there any more", 10)


def test_a_large_message_lies_there_until_it_is_read(cluster: Any, lying: Lying) -> None:
    queue = cluster.Queue()
    queue.put(LARGE)
    until(lambda: queue._channel.length() == 1, "it was sent", 10)
    assert len(lying()) == 1
    assert queue.get(timeout=10) == LARGE
    assert not lying()


def test_a_large_call_whose_worker_is_killed_is_done_by_another(cluster: Any, lying: Lying) -> None:
    deaths = cluster.Value("i", 0)
    with cluster.Pool(2, targets.use_flag, (deaths,)) as pool:
        assert pool.map(targets.die_once_with, [(n, LARGE) for n in range(10)], 1) == [len(LARGE)] * 10
    assert deaths.value == 2
    until(lambda: not lying(), "nothing lies there any more", 10)


def test_a_large_call_that_is_given_up_leaves_nothing_behind(cluster: Any, lying: Lying) -> None:
    with cluster.Pool(2) as pool:
        with pytest.raises(WorkerLost):
            pool.apply(targets.die_with, (LARGE,))
        until(lambda: not lying(), "nothing lies there any more", 10)


def test_large_calls_that_nobody_has_taken_go_with_their_pool(cluster: Any, lying: Lying) -> None:
    with cluster.Pool(1) as pool:
        pool.map_async(targets.sleep_with, [(60, LARGE)] * 3, 1)
        until(lambda: len(lying()) == 3, "all are sent", 10)
    until(lambda: not lying(), "nothing lies there any more", 10)


def test_answers_that_nobody_has_read_go_with_their_pool(cluster: Any, lying: Lying) -> None:
    with cluster.Pool(2) as pool:
        next(pool.imap_unordered(targets.echo, [LARGE] * 20))
    until(
        lambda: len(lying()) <= 2, "no more is left than what two workers were about to send when they were killed", 10
    )


def test_a_pipe_that_is_closed_leaves_nothing_behind(cluster: Any, lying: Lying) -> None:
    here, there = cluster.Pipe()
    here.send_bytes(LARGE)  # nobody will read it
    there.close()
    until(lambda: not lying(), "what lay in the inbox is gone", 10)
    with pytest.raises(BrokenPipeError):
        here.send_bytes(LARGE)
    until(lambda: not lying(), "what could not be sent is gone", 10)


@pytest.mark.parametrize("exc", [KeyboardInterrupt, BrokerUnreachable("away")])
def test_a_message_whose_reading_fails_is_there_for_the_next(
    cluster: Any, lying: Lying, monkeypatch: pytest.MonkeyPatch, exc: Any
) -> None:
    queue, store = cluster.Queue(), cluster.connect().store
    for item in (LARGE, "second"):
        queue.put(item)
    until(lambda: queue._channel.length() == 2, "both were sent", 10)

    def interrupted(*command: Any) -> Any:
        if command[0] == b"GETRANGE":
            raise exc
        return store.pipeline([command])[0]

    monkeypatch.setattr(store, "call", interrupted)
    with pytest.raises((KeyboardInterrupt, BrokerUnreachable)):
        queue.get(timeout=10)
    monkeypatch.undo()
    assert [queue.get(timeout=10), queue.get(timeout=10)] == [LARGE, "second"]
    assert not lying()


def test_one_message_cannot_be_exchanged_for_another(cluster: Any) -> None:
    run = cluster.connect()
    first, second = check_in(run, LARGE), check_in(run, LARGE[::-1])
    run.store.call("COPY", luggage_of(second), luggage_of(first), "REPLACE")
    with pytest.raises(WrongKey, match="does not open"):
        check_out(run, sealed(run, "x", first))


def test_a_ticket_cannot_be_made_to_name_another_message(cluster: Any) -> None:
    run = cluster.connect()
    first, second = check_in(run, LARGE), check_in(run, LARGE[::-1])
    altered = sealed(run, "x", first).replace(luggage_of(first).encode(), luggage_of(second).encode())
    with pytest.raises(WrongKey, match="does not open"):
        receive(run, "x", altered)


def test_a_ticket_is_good_for_one_message_once(cluster: Any) -> None:
    run = cluster.connect()
    message = sealed(run, "x", check_in(run, LARGE))
    assert check_out(run, message, keep=True) == check_out(run, message) == LARGE
    with pytest.raises(WrongKey, match="not in Redis any more"):
        check_out(run, message)


def test_an_item_larger_than_this_side_reads_is_refused_unread_and_the_next_one_is_there(
    cluster: Any, lying: Lying, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, queue, item = cluster.connect(), cluster.Queue(), bytes(4 << 20)
    for each in (item, "next"):
        queue.put(each)
    until(lambda: queue._channel.length() == 2, "both were sent", 10)
    before = sent(run)
    monkeypatch.setattr(run, "settings", replace(run.settings, message_size=1 << 20))
    assert queue.get(timeout=10) == "next"
    assert (
        "has more than 1048576 bytes and was refused unread: CROSSHOST_MESSAGE_SIZE=1048576" in capsys.readouterr().err
    )
    assert sent(run) - before < 3 << 20
    until(lambda: not lying(), "what was refused does not stay", 10)
    monkeypatch.undo()
    queue.put(item)
    assert queue.get(timeout=10) == item


def test_luggage_that_was_exchanged_for_something_huge_is_not_read_to_its_end(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cluster.connect()
    message = check_in(run, LARGE)
    run.store.call("SETRANGE", luggage_of(message), 100 << 20, b"x")
    monkeypatch.setattr(run, "settings", replace(run.settings, message_size=1 << 20))
    before = sent(run)
    with pytest.raises(WrongKey, match="CROSSHOST_MESSAGE_SIZE"):
        check_out(run, sealed(run, "x", message))
    assert sent(run) - before < 3 << 20


def sent(run: Any) -> int:
    """Bytes that Redis has sent to everybody."""
    found = re.search(rb"total_net_output_bytes:(\d+)", run.store.call("INFO", "stats"))
    assert found
    return int(found[1])
