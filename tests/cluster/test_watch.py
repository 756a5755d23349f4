"""A connection of the cluster can be waited on like any other: beside sockets, sentinels and pipes of this host."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection
from typing import Any

import pytest
import redis

from lab.cluster import watch
from tests.cluster import watch_targets as targets
from tests.cluster.contract_targets import TIMEOUT


@pytest.fixture
def server(cluster: Any) -> Iterator[redis.Redis]:
    """Somebody else's connection to the same Redis."""
    cluster.connect()
    with redis.Redis.from_url(cluster.settings.broker_url) as client:
        yield client


def test_connections_sentinels_sockets_and_pipes_are_waited_on_together(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    a, b = socket.socketpair()
    read_end, write_end = os.pipe()
    child = remote.Process(target=targets.send_all, args=(writer, ["hello"]))
    child.start()
    writer.close()
    mixed = [reader, child.sentinel, a, read_end]
    assert connection.wait([reader, a, read_end], TIMEOUT) == [reader]
    assert connection.wait([child.sentinel, a], TIMEOUT) == [child.sentinel]
    b.send(b"x")
    os.write(write_end, b"x")
    assert connection.wait(mixed, TIMEOUT) == mixed
    assert reader.recv() == "hello"
    with pytest.raises(EOFError):
        reader.recv()
    for end in (a, b):
        end.close()
    for fd in (read_end, write_end):
        os.close(fd)
    child.join()


def test_wait_blocks_until_the_message_comes(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    go = remote.Event()
    child = remote.Process(target=targets.send_when_told, args=(writer, go, 42), daemon=True)
    child.start()
    assert connection.wait([reader], 0.05) == []
    go.set()
    assert connection.wait([reader], TIMEOUT) == [reader]
    assert reader.recv() == 42


def test_what_was_sent_before_the_wait_is_readable_at_once(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    with socket.socket() as always_ready:
        for number in range(100):  # a socket that is not connected is ready: nothing waits for the message
            assert connection.wait([always_ready, reader], 0) == [always_ready]
            writer.send(number)
            assert connection.wait([always_ready, reader], 0) == [always_ready, reader]
            assert reader.recv() == number


def test_a_child_on_another_host_can_wait_too(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    reply = remote.Queue()
    child = remote.Process(target=targets.wait_here, args=(reader, reply), daemon=True)
    child.start()
    writer.send("over there")
    assert reply.get(timeout=TIMEOUT) == "over there"
    child.join(TIMEOUT)


def test_what_has_been_read_does_not_make_it_readable_again(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    for number in range(200):  # each ring may still be on its way when its message has been read
        assert connection.wait([reader], 0) == []
        writer.send(number)
        assert connection.wait([reader], TIMEOUT) == [reader]
        assert reader.recv() == number


def test_a_selector_that_registers_once_sees_every_message(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    child = remote.Process(target=targets.send_all, args=(writer, list(range(300))), daemon=True)
    child.start()
    writer.close()
    found: list[int] = []
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        with suppress(EOFError):
            while selector.select(TIMEOUT):
                found.append(reader.recv())
    assert found == list(range(300))


def test_an_event_loop_reads_it_beside_its_own_work(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)

    async def read_all() -> list[int]:
        found: list[int] = []
        done = asyncio.Event()

        def on_readable() -> None:
            found.append(reader.recv())
            if len(found) == 50:
                done.set()

        asyncio.get_running_loop().add_reader(reader.fileno(), on_readable)
        try:
            for number in range(50):
                writer.send(number)
                await asyncio.sleep(0)
            await asyncio.wait_for(done.wait(), TIMEOUT)
        finally:
            asyncio.get_running_loop().remove_reader(reader.fileno())
        return found

    assert asyncio.run(read_all()) == list(range(50))


def test_two_senders_and_a_reader_lose_no_ring(remote: Any) -> None:
    """A message may come between a look and the wait that follows it, or while another is being read."""
    ends = [remote.Pipe(duplex=False) for _ in range(2)]
    senders = [threading.Thread(target=targets.send_all, args=(writer, list(range(300)))) for _, writer in ends]
    readers: list[Any] = [reader for reader, _ in ends]
    for sender in senders:
        sender.start()
    counts = dict.fromkeys(readers, 0)
    while readers:
        ready: list[Any] = connection.wait(readers, TIMEOUT)
        assert ready
        for reader in ready:
            try:
                assert reader.recv() == counts[reader]
                counts[reader] += 1
            except EOFError:
                readers.remove(reader)
    assert set(counts.values()) == {300}


def test_the_end_of_a_killed_holder_is_readable(remote: Any) -> None:
    reader, writer = remote.Pipe(duplex=False)
    child = remote.Process(target=targets.hold, args=(writer,), daemon=True)
    child.start()
    writer.close()
    assert reader.poll(TIMEOUT)
    assert reader.recv() == "holding"
    assert connection.wait([reader], 0) == []
    child.kill()
    assert connection.wait([reader], TIMEOUT) == [reader]
    with pytest.raises(EOFError):
        reader.recv()
    assert connection.wait([reader], 0) == [reader]  # and stays so


def test_a_closed_connection_gives_its_descriptors_back(remote: Any) -> None:
    first = remote.Pipe()
    timer = threading.Timer(0.1, first[1].send, ("rung",))
    timer.start()
    assert connection.wait(first[:1], 10) == [
        first[0]
    ]  # the first one starts the thread; with a ring, it has its connection
    timer.join()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        a, b = remote.Pipe()
        assert connection.wait([a, b], 0) == []
        a.close()
        del b  # collected, not closed
        with pytest.raises(OSError, match="closed"):
            a.fileno()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lost_ring_delays_a_wait_and_no_more(
    cluster: Any, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.5)
    reader, writer = cluster.Pipe(duplex=False)
    connection.wait([reader], 0)
    server.delete(f"{reader._inbox}:watchers")  # what a server that restarts without its memory forgets
    writer.send("late")
    assert connection.wait([reader], watch.LOOK_AGAIN * 10 + 5) == [
        reader
    ]  # the wait under way began with the old bound
    assert reader.recv() == "late"


def test_rings_that_somebody_forges_change_nothing(cluster: Any, server: redis.Redis) -> None:
    reader, writer = cluster.Pipe(duplex=False)
    connection.wait([reader], 0)
    bell = cluster.connect().key("bell", "root")
    server.rpush(bell, b"", b"\xff\xfe", b"root/0", b"root/0 x", b"nobody/1 1")
    writer.send("real")
    assert connection.wait([reader], TIMEOUT) == [reader]
    assert reader.recv() == "real"
    assert connection.wait([reader], 0.2) == []


def test_a_wait_survives_the_loss_of_its_connections(cluster: Any, server: redis.Redis) -> None:
    reader, writer = cluster.Pipe(duplex=False)
    assert connection.wait([reader], 0) == []
    takes = ("blmpop", "blmove")
    waiting = [client["id"] for client in server.client_list() if client["cmd"] in takes and "b" in client["flags"]]
    assert waiting
    for client_id in waiting:
        server.client_kill_filter(_id=client_id)
    time.sleep(0.2)  # the thread is between two connections now
    writer.send("still here")
    assert connection.wait([reader], TIMEOUT) == [reader]
    assert reader.recv() == "still here"
