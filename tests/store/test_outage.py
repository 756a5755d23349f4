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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BrokerUnreachable
from lab.store import run as runs
from lab.store import store as stores
from lab.store.hand import FULL, MORE, Hand
from lab.store.lane import Lane
from lab.store.run import Run
from lab.store.script import PUSH, Script
from lab.store.store import Store
from tests.kit.proxy import Proxy
from tests.kit.server import Server

COUNT = Script("create(KEYS[3]) return redis.call('INCR', KEYS[3])")

PROGRAM = """
import sys, threading, time
import lab
from tests.cluster.cluster_targets import add_put_and_lock, sleep_for

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


AFTER_A_LONG_OUTAGE = """
import time
import lab
from lab.errors import BrokerUnreachable
from tests.cluster.cluster_targets import sleep_for

def run(ctx):
    child = ctx.Process(target=sleep_for, args=(0.01,))
    child.start()
    child.join()
    return child.exitcode

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        run(ctx)
        print("going", flush=True)
        queue = ctx.Queue()
        try:
            queue.get()
        except BrokerUnreachable:
            time.sleep(1)  # until the listener has given up, too
            print("gone", flush=True)
        input()
        time.sleep(3)  # a host needs that long to find Redis again
        print(run(ctx), flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, hosts=0) as server:
        yield server


def program(server: Server, tmp_path: Path, text: str = PROGRAM, **env: str) -> subprocess.Popen[str]:
    """A program that is in the middle of its work on the server's hosts."""
    script = tmp_path / "program.py"
    script.write_text(text)
    process = subprocess.Popen(
        [sys.executable, script], env=server.env | env, stdin=-1, stdout=-1, stderr=-1, text=True
    )
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
    for n in range(200):
        run.eval(PUSH, [source], n)
    taken = []
    for n in range(200):
        if n % 3 == 0:
            proxy.lose_replies(1)
        taken += run.take(source, 5)
    assert [int(n) for n in taken] == list(range(200))
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


@pytest.mark.parametrize("held", [0, 1, FULL - 1, FULL])
def test_an_item_that_comes_just_as_its_taker_is_interrupted_is_put_back(run: Run, held: int) -> None:
    source, hand = run.new_name("list"), Hand(run)
    for n in range(held):
        run.eval(PUSH, [source], n)
        hand.take(source, 5)
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

    def interrupted() -> None:
        timer.start()  # in here: on a machine that is slow enough, the interrupt comes before the wait
        hand.take(source, 10)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
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


def test_a_recovery_is_told_of_what_took_effect_in_an_earlier_slice_of_the_wait(
    run: Run, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SLICE", 0.3)
    source, before, after = run.new_name("list"), run.new_name("count"), run.new_name("count")
    told: list[int] = []

    def push_late() -> None:
        proxy.lose_replies(1)  # that of the slice in which the item comes
        other.eval(PUSH, [source], "item")

    def recover(applied: int) -> list[Any]:
        told.append(applied)
        return [b"item", 0]

    other = Run(run.settings, Store(server.url), run.id, run.me)
    timer = threading.Timer(0.7, push_late)  # neither as a slice ends nor as the run beats, once a second
    timer.start()
    run.store.wait(
        lambda left: ("BLMOVE", source, f"{source}:taken", "LEFT", "RIGHT", left),
        10,
        before=[run.command(COUNT, [before])],
        after=[run.command(COUNT, [after])],
        recover=recover,
    )
    timer.join()
    assert told == [2]
    assert run.store.call("GET", before) == b"1"


def test_an_interrupt_while_a_wait_is_recovered_leaves_no_reply_for_the_next(
    run: Run, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, key = run.new_name("list"), run.new_name("count")
    run.eval(PUSH, [source], "item")
    done = Lane._done

    def interrupted(lane: Lane) -> Any:
        lane.link.send([("ECHO", "of the interrupted")])
        raise KeyboardInterrupt

    monkeypatch.setattr(Lane, "_done", interrupted)
    peek = ("BLMOVE", source, source, "RIGHT", "RIGHT", 1)
    run.store.wait(lambda _: peek, 5)
    proxy.lose_replies(1)
    with pytest.raises(KeyboardInterrupt):
        run.store.wait(lambda _: peek, 5, before=[run.command(COUNT, [key])])
    monkeypatch.setattr(Lane, "_done", done)
    assert run.store.wait(lambda _: peek, 5) == [b"item"]


def test_an_interrupt_before_a_command_is_sent_gives_up_nothing_that_was_posted_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, lane = run.new_name("count"), run.store._lane
    run.post(COUNT, [key])
    lane.link.close()  # so that the next user has it sent again, if it is still known

    class Interrupted:
        def __iter__(self) -> Any:
            raise KeyboardInterrupt

        def __len__(self) -> int:
            return 1

    with pytest.raises(KeyboardInterrupt):
        run.store.pipeline(Interrupted())  # type: ignore[arg-type]
    assert lane.unread == 1
    run.store.settle()
    assert run.store.call("GET", key) == b"1"


def test_what_a_finalizer_deferred_is_kept_when_the_command_that_carries_it_fails(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run.new_name("count")
    run.store.call("PING")
    run.store._deferred.append(run.command(COUNT, [key]))  # as ``defer`` does while the lane is taken

    def fails(lane: Lane, commands: Any) -> None:
        if commands[0][0] == "PING":
            raise KeyboardInterrupt
        lane._enlist(commands)  # the connection breaks just now

    monkeypatch.setattr(Lane, "send", fails)
    with pytest.raises(KeyboardInterrupt):
        run.store.call("PING")
    monkeypatch.undo()
    run.store.settle()
    assert run.store.call("GET", key) == b"1"


def test_a_hand_into_which_nothing_came_in_time_takes_no_more(run: Run) -> None:
    source, hand = run.new_name("list"), run.new_name("hand")
    run.eval(PUSH, [source], "late")
    assert run.eval(MORE, [source, hand], 100, 0) == []
    run.eval(PUSH, [hand], "before")
    assert run.eval(MORE, [source, hand], 100, 1) == []
    assert run.store.call("LLEN", source) == 1


def test_a_process_that_has_ended_leaves_nothing_of_its_hands(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=1) as server:
        run = Run.as_root(server.settings, Store(server.url, patience=10))
        keys = run.key("keys")
        child = Run(run.settings, Store(server.url), run.id, "child")
        child.eval(runs.JOIN, [], 6000)
        child.take(child.new_name("list"), 0)
        child.store.settle()
        assert any(b":hand:child" in key for key in run.store.call("SMEMBERS", keys))
        run.eval(runs.BURY, [run.mailbox], "child", "letter", 0, 0)
        assert not [key for key in run.store.call("SMEMBERS", keys) if b"child" in key]
        run.close()


def test_the_silent_are_not_buried_when_it_was_redis_that_was_away(run: Run) -> None:
    processes = run.key("processes")
    seconds, _ = run.store.call("TIME")
    long_ago = (int(seconds) - 20) * 1000
    lease = int(run.settings.lease * 1000)
    run.store.call("ZADD", processes, long_ago, "child", long_ago + runs.ROOT_LEASES * lease, "root")
    beat = run.command(runs.BEAT, [], runs.ROOT_LEASES * lease, lease, runs.NAMES)
    assert run.store.call(*beat)[1:] == []  # nobody was heard: everybody gets a lease
    run.store.call("DEL", run.key("grace"))  # which is over now
    assert run.store.call(*beat)[1:] == [b"child", b""]  # the child alone is still silent


def forget_everything(server: Server) -> None:
    server.kill()
    for file in (server.directory / "appendonlydir").iterdir():
        file.unlink()
    server.start()


def test_a_redis_that_lost_its_data_is_named(server: Server) -> None:
    run = Run.as_root(server.settings, Store(server.url, patience=10))
    run.eval(COUNT, [run.new_name("count")])
    forget_everything(server)
    with pytest.raises(BrokerUnreachable, match="append-only"):
        run.eval(COUNT, [run.new_name("count")])
    run.close()


def test_a_run_that_redis_has_forgotten_does_not_spoil_the_lane_for_the_next(server: Server) -> None:
    store = Store(server.url, patience=10)  # as a slot has it, which works for one run after the other
    first = Run.as_root(server.settings, store)
    first.post(COUNT, [first.new_name("count")])
    store._lane.link.close()  # with a reply on its way
    forget_everything(server)
    with pytest.raises(BrokerUnreachable, match="append-only"):
        store.settle()
    second = Run.as_root(server.settings, store)
    assert second.eval(COUNT, [second.new_name("count")]) == 1
    second.close()


def test_who_waits_for_what_redis_has_forgotten_is_told(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run.as_root(server.settings, Store(server.url, patience=10))
    ended = threading.Event()
    run.listen("child", lambda mail: ended.set() if mail["event"] == "exit" else None)
    waiting = ThreadPoolExecutor(1).submit(run.take, run.new_name("list"), None)
    run.eval(COUNT, [run.new_name("count")])
    forget_everything(server)
    with pytest.raises(BrokerUnreachable, match="append-only"):
        waiting.result(30)
    assert ended.wait(20)  # its children count as ended: nobody joins them for ever
    run.close()
    assert capfd.readouterr().err.count("append-only") == 1


def test_a_program_that_went_on_after_a_long_outage_can_start_processes_again(tmp_path: Path) -> None:
    with (
        Server(tmp_path, hosts=1) as server,
        program(server, tmp_path, AFTER_A_LONG_OUTAGE, CROSSHOST_OUTAGE="1") as process,
    ):
        assert process.stdout
        server.kill()
        assert process.stdout.readline() == "gone\n"
        server.start()
        out, err = process.communicate("again\n", timeout=60)
        assert out == "0\n", out + err


def test_two_interrupts_end_a_program_that_waits_for_redis(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=2) as server, program(server, tmp_path) as process:
        server.kill()
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)  # the first ends what it waited for; it cleans up, and waits again, for 30 s
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=15)
        finally:
            process.kill()
        assert process.returncode not in (0, -signal.SIGKILL)


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
