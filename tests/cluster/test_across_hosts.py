"""What CPython's own tests do not ask: exclusion between hosts, one run for one message, values that keep their types."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lab
from lab.fleet.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK
from onloan import deadletters
from tests.cluster import across_targets as targets
from tests.cluster.across_targets import TIMEOUT, VALUES, portrait
from tests.kit import variables
from tests.kit.wait import until

TIMES = 40


# A lock excludes on another host


def on_two_hosts(cluster: Any, make: Callable[[Any], Any]) -> list[Any]:
    """Two started processes on two hosts; ``make`` makes one for an event that tells it that it was chosen."""
    most = max(host.slots for host in cluster.fleet())
    events = [cluster.Event() for _ in range(most + 1)]  # more than fit on one host
    started = [make(event) for event in events]
    for process in started:
        process.start()
    first = started[0]
    second = next(process for process in started if process.host != first.host)
    for process, event in zip(started, events, strict=True):
        if process in (first, second):
            event.set()
        else:
            process.kill()
            process.join(TIMEOUT)
    return [first, second]


def contend(cluster: Any, lock: Any) -> tuple[int, int]:
    """Updates lost, and times that one was inside with the other, of two processes on two hosts."""
    value, inside, reply = cluster.Value("i", 0), cluster.Value("i", 0), cluster.Queue()
    start = cluster.Barrier(2)

    def make(chosen: Any) -> Any:
        return cluster.Process(target=targets.contend, args=(value, inside, lock, chosen, start, reply, TIMES))

    processes = on_two_hosts(cluster, make)
    reports = [reply.get(timeout=TIMEOUT) for _ in processes]
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode == 0
    hosts = {host for host, _ in reports}
    assert hosts == {process.host for process in processes}
    assert len(hosts) == 2
    return 2 * TIMES - value.value, sum(met for _, met in reports)


def test_without_a_lock_two_hosts_lose_updates(cluster: Any) -> None:
    lost, met = contend(cluster, contextlib.nullcontext())
    assert lost > 0
    assert met > 0


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_a_lock_excludes_on_another_host(cluster: Any, kind: str) -> None:
    assert contend(cluster, getattr(cluster, kind)()) == (0, 0)


# A message that is delivered twice starts one process


def deliver_again(cluster: Any, process: Any) -> None:
    run = cluster.connect()
    cluster.app.send_task(PROCESS_TASK, [run.id, process._popen.process_id], queue=PROCESS_QUEUE, ignore_result=True)


def refusals(cluster: Any, process: Any) -> int:
    """How often a host has refused to start a process again: each time, a dead letter says so."""
    letters = deadletters.read(cluster.connect().store.call, DEAD_KEY)
    return sum(f"Process {process._popen.process_id}" in letter.reason for letter in letters)


def until_refused(cluster: Any, process: Any) -> None:
    until(lambda: refusals(cluster, process), "a host has seen the second delivery", TIMEOUT)


@pytest.mark.parametrize("moment", ["while it runs", "after its end"])
def test_a_message_delivered_again_is_not_run_again(cluster: Any, moment: str) -> None:
    runs, go = cluster.Value("i", 0), cluster.Event()
    process = cluster.Process(target=targets.count_and_wait, args=(runs, go))
    process.start()
    if moment == "after its end":
        go.set()
        process.join(TIMEOUT)
    deliver_again(cluster, process)
    until_refused(cluster, process)
    go.set()
    process.join(TIMEOUT)
    assert (process.exitcode, runs.value) == (0, 1)


def test_two_deliveries_that_race_start_one_process(cluster: Any, monkeypatch: Any) -> None:
    send = cluster.app.send_task

    def twice(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        send(*args, **kwargs)

    monkeypatch.setattr(cluster.app, "send_task", twice)
    runs = cluster.Value("i", 0)
    processes = [cluster.Process(target=targets.count, args=(runs,)) for _ in range(5)]
    for process in processes:
        process.start()
        process.join(TIMEOUT)
        until_refused(cluster, process)
    assert [process.exitcode for process in processes] == [0] * 5
    assert runs.value == 5


# Values come back with the type they left with


def by_process_arguments(ctx: Any) -> list[Any]:
    reply = ctx.Queue()
    return _from_child(ctx, reply, targets.send_back, VALUES, reply)


def by_queue(ctx: Any) -> list[Any]:
    source, reply = ctx.Queue(), ctx.Queue()
    for value in VALUES:
        source.put(value)
    return _from_child(ctx, reply, targets.relay, source, reply, len(VALUES))


def by_simple_queue(ctx: Any) -> list[Any]:
    source, reply = ctx.SimpleQueue(), ctx.Queue()
    child = ctx.Process(target=targets.send_back, args=(VALUES, source))
    child.start()
    back = [source.get() for _ in VALUES]
    child.join(TIMEOUT)
    del reply
    return back


def by_pipe(ctx: Any) -> list[Any]:
    here, there = ctx.Pipe()
    child = ctx.Process(target=targets.echo, args=(there, len(VALUES)))
    child.start()
    back = []
    for value in VALUES:
        here.send(value)
        assert here.poll(TIMEOUT)
        back.append(here.recv())
    child.join(TIMEOUT)
    return back


def by_pool(ctx: Any) -> list[Any]:
    with ctx.Pool(2) as pool:
        return list(pool.map_async(targets.same, VALUES, 7).get(TIMEOUT))


def by_executor(ctx: Any) -> list[Any]:
    with lab.get_executor(ctx.place, 2) as executor:
        return list(executor.map(targets.same, VALUES, timeout=TIMEOUT))


def _from_child(ctx: Any, reply: Any, target: Any, *args: Any) -> list[Any]:
    child = ctx.Process(target=target, args=args)
    child.start()
    back = [reply.get(timeout=TIMEOUT) for _ in VALUES]
    child.join(TIMEOUT)
    assert child.exitcode == 0
    return back


@pytest.mark.parametrize("way", [by_process_arguments, by_queue, by_simple_queue, by_pipe, by_pool, by_executor])
def test_a_value_comes_back_with_the_type_it_left_with(ctx: Any, way: Callable[[Any], list[Any]]) -> None:
    for sent, received in zip(VALUES, way(ctx), strict=True):
        assert portrait(received) == portrait(sent)


def test_a_portrait_tells_equal_values_of_different_types_apart() -> None:
    assert len({repr(portrait(value)) for value in (1, True, 1.0, 1 + 0j, targets.Level.LOW)}) == 5
    assert portrait([(1,)]) != portrait([(True,)])
    assert portrait((1, "b")) != portrait(targets.Pair(1, "b"))


@pytest.mark.parametrize(
    ("code", "value"),
    [("i", -3), ("q", 2**62), ("d", 0.1), ("c", b"x"), (ctypes.c_bool, True), (ctypes.c_wchar, "ü"), ("B", 255)],
)
def test_a_shared_value_keeps_its_type(ctx: Any, code: Any, value: Any) -> None:
    shared, array = ctx.Value(code, value), ctx.Array(code, [value] * 2)
    assert portrait(shared.value) == portrait(value)
    assert portrait(array[1]) == portrait(value)


# What a main module defines, and what does not pickle


MAIN = """
import sys
from dataclasses import dataclass
import lab

@dataclass
class Point:
    x: int

def double(point):
    return Point(2 * point.x)

def tell(point, reply):
    reply.put(double(point))

class Worker:
    def __call__(self, x):
        return Point(x)

if __name__ == "__main__":
    place = sys.argv[1]
    ctx = lab.get_context(place)
    reply = ctx.Queue()
    child = ctx.Process(target=tell, args=(Point(1), reply))
    child.start()
    answers = [reply.get(timeout=30)]
    child.join()
    with ctx.Pool(1) as pool:
        answers += pool.map(double, [Point(2)]) + [pool.apply(Worker(), (6,))]
    with lab.get_executor(place, 1) as executor:
        answers.append(executor.submit(double, Point(4)).result(30))
    print([answer.x for answer in answers], {type(answer) is Point for answer in answers}, child.exitcode)
"""


def test_functions_and_classes_of_the_main_module_run_elsewhere(ctx: Any, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(MAIN)
    env = dict(os.environ)
    if ctx.place == "cluster":
        ctx.connect()
        env = variables.leading_to(ctx.settings)
    done = subprocess.run([sys.executable, script, ctx.place], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[2, 4, 6, 8] {True} 0\n", done.stderr


def start_of(thing: Any) -> Callable[[Any], Any]:
    return lambda ctx: ctx.Process(target=targets.same, args=(thing,)).start()


def refused_by(ctx: Any, act: Callable[[Any], Any]) -> type[BaseException]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is what the test compares
        act(ctx)
    return caught.type


def iter_of_nothing() -> Iterator[None]:
    yield from ()


REFUSED: dict[str, Callable[[Any], Any]] = {
    "a lock of threads": start_of(threading.Lock()),
    "a generator": start_of(iter_of_nothing()),
    "an open file": start_of(sys.__stdout__),
    "a frame": start_of(sys._getframe()),
}
IN_A_POOL: dict[str, Callable[[Any, Any], Any]] = {
    "map over generators": lambda pool, ctx: pool.map(targets.same, [iter_of_nothing()]),
    "a lock of threads in a call": lambda pool, ctx: pool.apply(targets.same, (threading.Lock(),)),
    "a lock in a call": lambda pool, ctx: pool.apply(targets.same, (ctx.Lock(),)),
    "a queue in a call": lambda pool, ctx: pool.apply(targets.same, (ctx.Queue(),)),
    "a value in a call": lambda pool, ctx: pool.apply(targets.same, (ctx.Value("i"),)),
}


@pytest.fixture(scope="module")
def processes() -> Any:
    return lab.get_context("processes")


@pytest.mark.parametrize("what", REFUSED)
def test_the_cluster_refuses_what_spawn_refuses_with_the_same_exception(
    cluster: Any, processes: Any, what: str
) -> None:
    act = REFUSED[what]
    assert refused_by(cluster, act) is refused_by(processes, act)
    assert cluster.active_children() == []


def test_a_pool_and_an_executor_refuse_what_those_of_processes_refuse(cluster: Any, processes: Any) -> None:
    refused: dict[str, list[Any]] = {}
    for ctx in (cluster, processes):
        with ctx.Pool(1) as pool:
            for what, act in IN_A_POOL.items():
                refused.setdefault(what, []).append(refused_by(ctx, partial(act, pool)))
            assert pool.apply(targets.same, (1,)) == 1  # the pool goes on
        with lab.get_executor(ctx.place, 1) as executor:
            for what, argument in (("a lock", threading.Lock()), ("a generator", iter_of_nothing())):
                error = executor.submit(targets.same, argument).exception(TIMEOUT)
                refused.setdefault(f"submit of {what}", []).append(type(error))
    assert {what: ours for what, (ours, _) in refused.items()} == {
        what: theirs for what, (_, theirs) in refused.items()
    }
