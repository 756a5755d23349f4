"""Keys that somebody deletes or overwrites: who waits for what was there gets an error that names the key, and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from faults.keys import storm
from lab.cluster.context import ClusterContext
from lab.cluster.managers import residents
from lab.errors import KeyLost
from lab.fleet.hosts import list_hosts
from lab.store.damage import type_of
from lab.store.store import Store
from tests.cluster import keys_targets as targets
from tests.kit.server import Server
from tests.kit.wait import until

IN_TIME = 20.0
"""Seconds in which whatever waits has to be told: ten, and what a busy machine adds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("keys"), hosts=2, slots=4) as server:
        yield server


@pytest.fixture
def ctx(server: Server) -> Iterator[ClusterContext]:
    """A program of its own, in the place of the session's."""
    from lab.cluster import current
    from lab.store import run as runs

    before, former = current.context(), runs.current()
    runs.enter(None)
    ctx = ClusterContext(server.settings)
    current.enter(ctx)
    yield ctx
    ctx.close()
    current.enter(before)
    runs.enter(former)


def keys(server: Server, ctx: ClusterContext, pattern: str = "*") -> list[str]:
    base = ctx.connect().base
    return sorted(key.decode() for key in server.client.scan_iter(base.replace("{", "\\{") + pattern))


def in_background(do: Callable[[], Any]) -> Future[Any]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(do)
    executor.shutdown(wait=False)
    return future


def living(prefix: str = "crosshost-") -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)}


def test_every_key_has_the_type_that_is_known_of_it(server: Server, ctx: ClusterContext) -> None:
    lock, queue, held = ctx.Lock(), ctx.JoinableQueue(3), ctx.Event()
    ours, theirs = ctx.Pipe()
    ours.fileno()
    value, array = ctx.Value("q", 1), ctx.Array("i", 3)
    value.add_once(1, 1)
    manager = ctx.Manager()
    objects = [manager.list([1]), manager.Queue(), manager.Lock(), manager.dict()]
    objects[1].put(1)
    objects[0].append(array[:])
    queue.put(b"x" * (1 << 18))
    holder = ctx.Process(target=targets.hold, args=(lock, held, 3.0))
    holder.start()
    held.wait(10)
    waiting = in_background(lambda: lock.acquire(timeout=20))
    with ctx.Pool(2) as pool:
        results = pool.map_async(targets.nap, [0.3] * 8, 1)
        theirs.send(1)
        until(lambda: keys(server, ctx, "sem:*:waiters"), "somebody waits")
        seen = {key: server.client.type(key).decode() for key in keys(server, ctx)}
        results.get(20)
    assert waiting.result(20)
    lock.release()
    fleet = {key.decode(): server.client.type(key).decode() for key in server.client.scan_iter("crosshost:host*")}
    fleet |= {"crosshost:busy": "zset"}
    wrong = {key: (kind, type_of(key)) for key, kind in (seen | fleet).items() if kind not in (type_of(key), "none")}
    assert not wrong
    assert len(seen) > 25
    holder.join(10)


@pytest.mark.parametrize("list_name", ["calls", "results"])
def test_a_map_whose_calls_or_answers_were_deleted_ends_with_an_error_that_names_the_key(
    server: Server, ctx: ClusterContext, list_name: str
) -> None:
    with ctx.Pool(2) as pool:
        busy = threading.Event()  # the thread that takes answers is in this callback, so that they stay in their list
        pool.apply(targets.echo, (1,))
        pool.apply_async(targets.echo, (1,), callback=lambda _: busy.wait(30))
        result = pool.map_async(targets.nap, [0.2] * 40, 1)
        key = pool._calls.key(list_name)
        until(lambda: server.client.delete(key), "there was something to delete", 10)
        busy.set()
        with pytest.raises(KeyLost, match=pool._calls.key("calls")):
            result.get(IN_TIME + 8)
        assert pool.map(targets.echo, range(100)) == list(range(100))  # the pool goes on


def test_calls_that_only_take_long_are_not_missed(ctx: ClusterContext) -> None:
    with ctx.Pool(2) as pool:
        assert pool.map(targets.nap, [13.0, 13.0, 0.0], 1) == [13.0, 13.0, 0.0]


def test_a_waiter_whose_lock_was_deleted_is_told(server: Server, ctx: ClusterContext) -> None:
    for victim in ("", ":waiters"):
        lock = ctx.Lock()
        lock.acquire()
        waiting = in_background(lock.acquire)
        key = lock._semlock.name
        until(lambda key=key: server.client.exists(f"{key}:waiters"), "it waits")  # type: ignore[misc]
        server.client.delete(key + victim)
        with pytest.raises(KeyLost, match=key):
            waiting.result(IN_TIME)


def test_a_waiter_for_a_condition_that_was_deleted_is_told(server: Server, ctx: ClusterContext) -> None:
    condition = ctx.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    waiting = in_background(wait)
    until(lambda: server.client.exists(condition._name), "it waits")
    server.client.delete(condition._name)
    with pytest.raises(KeyLost, match=condition._name):
        waiting.result(IN_TIME)


def test_a_long_wait_for_a_lock_is_no_loss(ctx: ClusterContext) -> None:
    lock, held = ctx.Lock(), ctx.Event()
    holder = ctx.Process(target=targets.hold, args=(lock, held, 12.0))
    holder.start()
    held.wait(10)
    assert lock.acquire(timeout=25)
    holder.join(10)


def test_who_reads_from_a_pipe_that_was_deleted_is_told(server: Server, ctx: ClusterContext) -> None:
    ours, theirs = ctx.Pipe()
    waiting = in_background(ours.recv)
    server.client.delete(f"{ours._inbox}:holders")
    with pytest.raises(KeyLost, match="holders"):
        waiting.result(IN_TIME)
    theirs.close()


def test_an_end_of_file_that_was_deleted_is_read_all_the_same(server: Server, ctx: ClusterContext) -> None:
    ours, theirs = ctx.Pipe()
    theirs.close()
    assert server.client.delete(ours._inbox)
    with pytest.raises(EOFError):
        in_background(ours.recv).result(IN_TIME)


def test_a_process_whose_last_letter_was_deleted_is_joined(
    server: Server, ctx: ClusterContext, capfd: pytest.CaptureFixture[str]
) -> None:
    process = ctx.Process(target=targets.idle, args=(1.0,))
    process.start()
    run = ctx.connect()
    blocker = redis.Redis.from_url(server.url)
    ended = in_background(lambda: process.join(40))
    # as fast as it comes, the letter is taken away; what the listener gets first it has
    thief = in_background(lambda: [blocker.delete(run.mailbox) for _ in iter(lambda: ended.done(), True)])
    ended.result(45)
    thief.result(45)
    assert process.exitcode in (0, -9)
    capfd.readouterr()


def test_a_shared_number_that_was_deleted_counts_not_from_nought(server: Server, ctx: ClusterContext) -> None:
    value = ctx.Value("q", 5)
    key = value._obj._memory.key
    assert value.add(1) == 6
    server.client.delete(key)
    with pytest.raises(KeyLost, match=key):
        value.add(1)
    with pytest.raises(KeyLost, match=key):
        value.add_once(1, 7)
    with pytest.raises(KeyLost, match=key):
        _ = value.value
    with pytest.raises(KeyLost, match=key):
        value.value = 3
    assert not server.client.exists(key)


def test_a_call_of_a_resident_that_was_deleted_is_told(ctx: ClusterContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ctx.connect()
    lost: list[Any] = []
    residents._serve(run)
    shared = residents.Resident(run, run.key("object", f"{run.me}-1"), f"{run.me}/1")
    real = run.eval

    def lose_the_call(script: Any, names: list[str], *args: Any) -> Any:
        if script is residents.CALL and not lost:
            lost.append(args)  # as if somebody had deleted it, before it was read
            return 1
        return real(script, names, *args)

    monkeypatch.setattr(run, "eval", lose_the_call)
    with pytest.raises(KeyLost, match=run.key("calls", run.me)):
        in_background(lambda: shared.ask(None, "method", (), {})).result(IN_TIME)
    assert lost


WRONG: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "set": lambda client, key: client.sadd(key, "x"),
    "zset": lambda client, key: client.zadd(key, {"x": 1}),
    "hash": lambda client, key: client.hset(key, "x", "y"),
}


def overwrite(server: Server, key: str, kind: str) -> None:
    server.client.delete(key)
    WRONG[kind](server.client, key)


@pytest.mark.parametrize("name", ["mail:root", "calls:root", "bell:root", "graves", "swept", "round"])
def test_a_service_thread_survives_a_key_of_another_type(
    server: Server, ctx: ClusterContext, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    run = ctx.connect()
    process = ctx.Process(target=targets.idle, args=(0.1,))  # the listener
    process.start()
    process.join(20)
    residents._serve(run)
    ours, theirs = ctx.Pipe()
    ours.fileno()  # the bell
    before = living()
    key = run.key(*name.split(":"))
    overwrite(server, key, "hash" if name != "round" else "list")
    until(lambda: server.client.type(key) != (b"hash" if name != "round" else b"list"), "it is put right", 30)
    time.sleep(1.0)
    assert living() >= before
    other = ctx.Process(target=targets.idle, args=(0.1,))
    other.start()
    other.join(20)
    assert other.exitcode == 0
    theirs.send("x")
    assert ours.poll(10)
    assert ours.recv() == "x"
    assert key in capfd.readouterr().err


@pytest.mark.parametrize("part", ["calls", "results", "seen", "parked", "deaths"])
def test_a_pool_survives_a_key_of_another_type(server: Server, ctx: ClusterContext, part: str) -> None:
    with ctx.Pool(2) as pool:
        assert pool.map(targets.echo, range(50)) == list(range(50))
        overwrite(server, pool._calls.key(part), "hash" if part != "deaths" else "list")
        result = pool.map_async(targets.echo, range(50), 1)
        try:
            assert result.get(40) == list(range(50))
        except KeyLost as exc:
            assert pool._calls.name in str(exc)  # noqa: PT017
        assert pool.map_async(targets.echo, range(200)).get(40) == list(range(200))


@pytest.mark.parametrize("name", ["keys", "processes"])
def test_without_the_keys_that_a_run_stands_on_every_wait_ends_with_one_error(
    server: Server, ctx: ClusterContext, name: str
) -> None:
    run = ctx.connect()
    waiting = [in_background(ctx.Queue().get), in_background(lambda: run.take(run.new_name("list"), None))]
    process = ctx.Process(target=targets.idle, args=(60,))
    process.start()
    pool = ctx.Pool(2)
    waiting.append(in_background(pool.map_async(targets.nap, [30, 30], 1).get))
    time.sleep(0.5)
    server.client.delete(run.key(name))
    begun = time.monotonic()
    for future in waiting:
        with pytest.raises(Exception, match=r"does not know this program|Redis has lost") as caught:
            future.result(IN_TIME)
        assert isinstance(caught.value, ConnectionError)
    process.join(IN_TIME)
    assert process.exitcode is not None
    assert time.monotonic() - begun < IN_TIME + 5
    pool.terminate()


@pytest.mark.parametrize(
    ("key", "kind"),
    [("crosshost:hosts", "string"), ("crosshost:host:host-1", "list"), ("crosshost:busy", "hash"),
     ("crosshost:celery:processes", "string"), ("crosshost:celery:processes:leases", "string"),
     ("crosshost:celery:processes:held", "list"), ("crosshost:celery:leases", "list"),
     ("crosshost:celery:dead", "hash"), ("crosshost:celery:_kombu.binding.processes", "string")],
)  # fmt: skip
def test_a_fleet_whose_keys_are_of_another_type_serves_the_next_program(
    server: Server, ctx: ClusterContext, key: str, kind: str
) -> None:
    store = Store(server.url)
    overwrite(server, key, kind)
    until(lambda: len(list_hosts(store)) == 2, "both hosts say again that they are there", 20)
    process = ctx.Process(target=targets.idle, args=(0.1,))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert all(worker.poll() is None for worker in server.workers)


def test_a_storm_over_the_keys_leaves_nobody_waiting_and_a_fleet_that_serves() -> None:
    assert storm(7, 40) == []  # thousands: python -m faults.keys
