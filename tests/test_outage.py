"""Redis killed, silent, or cut off in the middle: programs go on where they were, and nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import run as runs
from lab.cluster.hand import Hand
from lab.cluster.queues import PUSH
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable
from tests.proxy import Proxy
from tests.server import Server

COUNT = Script("create(KEYS[3]) return redis.call('INCR', KEYS[3])")

PROGRAM = """
import sys, threading, time
import lab
from tests.cluster_targets import add_put_and_lock, sleep_for

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        value, queue, lock = ctx.Value("i", 0), ctx.Queue(), ctx.Lock()
        children = [ctx.Process(target=add_put_and_lock, args=(value, queue, lock, 600)) for _ in range(3)]
        for child in children:
            child.start()
        pool = ctx.Pool(3)
        result = pool.map_async(sleep_for, [0.005] * 1000, 1)
        print("going", flush=True)
        items = sorted(queue.get(timeout=60) for _ in range(1800))
        print(items == sorted([*range(600)] * 3), len(result.get(60)), flush=True)
        for child in children:
            child.join(30)
        print(value.value, [child.exitcode for child in children], flush=True)
        pool.terminate()
        pool.join()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, hosts=0) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
def run(server: Server, proxy: Proxy) -> Iterator[Run]:
    run = Run.as_root(server.settings, Store(proxy.url, patience=20))
    yield run
    run.close()


def program(server: Server, tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, script], env=server.env, stdout=-1, stderr=-1, text=True)
    assert process.stdout
    assert process.stdout.readline() == "going\n"
    return process


def test_redis_killed_eight_times_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=2, slots=4) as server, program(server, tmp_path) as process:
        for away in (0.0, 0.0, 0.5, 0.0, 1.5, 0.0, 0.3, 0.0):
            time.sleep(0.4)  # let it work for a moment: when the next blow comes is what is tested
            server.restart(away)
        out, err = process.communicate(timeout=100)
        assert out.splitlines() == ["True 1000", "1800 [0, 0, 0]"], out + err
        assert "does not answer" in err
        assert "answers again" in err


def test_redis_silent_for_longer_than_a_lease_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=2, slots=4, lease=3) as server, program(server, tmp_path) as process:
        assert server.valkey
        server.valkey.send_signal(signal.SIGSTOP)  # what is sent meanwhile arrives, late and over connections given up
        time.sleep(8)
        server.valkey.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=100)
        assert out.splitlines() == ["True 1000", "1800 [0, 0, 0]"], out + err


def test_a_script_whose_reply_is_lost_takes_effect_once_and_still_replies(run: Run, proxy: Proxy) -> None:
    key = run.new_name("count")
    assert run.eval(COUNT, [key]) == 1
    for expected in range(2, 12):
        proxy.lose_replies(1)
        assert run.eval(COUNT, [key]) == expected
        assert proxy.lost == 1
    assert run.store.call("GET", key) == b"11"


def test_posts_whose_replies_are_lost_take_effect_once_and_in_order(run: Run, proxy: Proxy) -> None:
    key = run.new_name("list")
    for n in range(50):
        if n % 7 == 0:
            proxy.lose_replies(1)
        run.post(PUSH, [key], n)
        if n % 5 == 0:
            run.store.settle()
    assert [int(n) for n in run.store.call("LRANGE", key, 0, -1)] == list(range(50))


def test_an_item_whose_reply_is_lost_is_taken_once(run: Run, proxy: Proxy) -> None:
    source = run.new_name("list")
    for n in range(20):
        run.eval(PUSH, [source], n)
    taken = []
    for n in range(20):
        if n % 3 == 0:
            proxy.lose_replies(1)
        taken += run.take(source, 5)
    assert [int(n) for n in taken] == list(range(20))
    assert run.take(source, 0) == []


def test_a_batch_whose_reply_is_lost_is_taken_once(run: Run, proxy: Proxy) -> None:
    source, taken = run.new_name("list"), list[bytes]()
    for n in range(200):
        run.post(PUSH, [source], n)
    run.store.settle()
    while len(taken) < 200:
        proxy.lose_replies(1)
        taken += run.take(source, 5, 16)
    assert [int(n) for n in taken] == list(range(200))


def test_an_item_that_comes_just_as_its_taker_is_interrupted_is_put_back(run: Run, server: Server) -> None:
    source, hand = run.new_name("list"), Hand(run)
    wait = run.store.wait

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        wait(*args, **kwargs)  # Redis has moved the item; the interrupt comes before anybody has looked at the reply
        raise KeyboardInterrupt

    run.eval(PUSH, [source], "item")
    run.store.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        hand.take(source, 5)
    run.store.wait = wait  # type: ignore[method-assign]
    assert run.store.call("LLEN", source) == 1
    assert hand.take(source, 5) == [b"item"]


def test_a_taker_that_is_interrupted_while_it_waits_takes_nothing_later(run: Run) -> None:
    source, hand = run.new_name("list"), Hand(run)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        hand.take(source, 10)
    timer.join()
    run.eval(PUSH, [source], "item")
    assert run.store.call("LLEN", source) == 1  # Redis does not go on waiting for who has gone
    assert hand.take(source, 5) == [b"item"]


def test_a_network_that_swallows_packets_delays_and_loses_nothing(run: Run, proxy: Proxy) -> None:
    key, source = run.new_name("count"), run.new_name("list")
    taker_got: list[bytes] = []
    taker = threading.Thread(target=lambda: taker_got.extend(run.take(source, 40)))
    taker.start()
    run.eval(COUNT, [key])
    proxy.cut()
    healer = threading.Timer(7, proxy.heal)
    healer.start()
    assert run.eval(COUNT, [key]) == 2  # sent into the void, and again after it has healed
    run.eval(PUSH, [source], "item")
    taker.join(40)
    assert taker_got == [b"item"]
    assert run.store.call("GET", key) == b"2"
    healer.join()


def test_the_silent_are_not_buried_when_it_was_redis_that_was_away(run: Run) -> None:
    processes = run.key("processes")
    seconds, _ = run.store.call("TIME")
    long_ago = (int(seconds) - 20) * 1000
    lease = int(run.settings.lease * 1000)
    run.store.call("ZADD", processes, long_ago, "child", long_ago + runs.ROOT_LEASES * lease, "root")
    assert run.eval(runs.BEAT, [], runs.ROOT_LEASES * lease, lease) == []  # nobody was heard: everybody gets a lease
    run.store.call("ZADD", processes, long_ago, "child")
    assert run.eval(runs.BEAT, [], runs.ROOT_LEASES * lease, lease) == [b"child", b""]  # the child alone was silent


def test_a_redis_that_lost_its_data_is_named(server: Server, tmp_path: Path) -> None:
    run = Run.as_root(server.settings, Store(server.url, patience=10))
    run.eval(COUNT, [run.new_name("count")])
    server.kill()
    for file in (tmp_path / "appendonlydir").iterdir():
        file.unlink()
    server.start()
    with pytest.raises(BrokerUnreachable, match="append-only"):
        run.eval(COUNT, [run.new_name("count")])
    run.close()


def test_a_redis_that_stays_away_ends_the_wait_when_patience_does(server: Server) -> None:
    store = Store(server.url, patience=1)
    store.call("PING")
    server.kill()
    begun = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="does not answer"):
        store.call("PING")
    assert 1 <= time.monotonic() - begun < 5
    begun = time.monotonic()
    with contextlib.suppress(BrokerUnreachable):
        store.call("PING")
    assert time.monotonic() - begun < 0.5  # it is known by now
