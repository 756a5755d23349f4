"""Executors: what concurrent.futures promises, in every place; and what only a fleet can lose."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import pytest

import lab
from conformance import futures as suite
from lab.cluster.futures import MAX_AHEAD, BrokenClusterPool, CallLost, ClusterExecutor
from lab.errors import WorkerLost
from tests.cluster import futures_targets as targets
from tests.cluster.cluster_targets import Unloadable
from tests.cluster.futures_targets import TIMEOUT
from tests.kit import variables

AT_LEAST = {"ExecutorTest": 12, "ShutdownTest": 6, "WaitTests": 7, "AsCompleted": 4, "Initializer": 2, "Deadlock": 12}
"""Classes of CPython's tests, and how many of each pass on the cluster in every version; a few more in some."""


@pytest.fixture
def executor(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Makes executors of each place, and shuts them down."""
    yield from _executors(ctx)


@pytest.fixture
def remote_executor(remote: Any) -> Iterator[Callable[..., Any]]:
    """The same for the places whose workers have a memory of their own."""
    yield from _executors(remote)


@pytest.fixture
def cluster_executor(cluster: Any) -> Iterator[Callable[..., Any]]:
    """The same for the cluster."""
    yield from _executors(cluster)


def _executors(ctx: Any) -> Iterator[Callable[..., Any]]:
    made = []

    def make(max_workers: int = 2, initializer: Any = None, initargs: Any = ()) -> Any:
        made.append(lab.get_executor(ctx.place, max_workers, initializer, initargs))
        return made[-1]

    yield make
    for each in made:
        each.shutdown(cancel_futures=True)


# What every place does


def test_a_future_has_the_result_of_its_call(executor: Any) -> None:
    pool = executor()
    assert isinstance(pool, futures.Executor)
    assert pool.submit(targets.square, 7).result(TIMEOUT) == 49
    assert pool.submit(targets.capture, 1, self=2, fn=3).result(TIMEOUT) == ((1,), {"self": 2, "fn": 3})


def test_map_keeps_the_order_whatever_the_chunks(executor: Any) -> None:
    pool, expected = executor(), [n * n for n in range(20)]
    assert list(pool.map(targets.square, range(20), timeout=TIMEOUT)) == expected
    assert list(pool.map(targets.square, range(20), timeout=TIMEOUT, chunksize=6)) == expected
    with pytest.raises(ZeroDivisionError):
        list(pool.map(targets.divide, [1, 2], [1, 0], timeout=TIMEOUT))


def test_a_result_that_is_late_is_a_timeout_and_may_still_come(executor: Any) -> None:
    future = executor().submit(targets.nap, 0.5)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert future.result(TIMEOUT) == 0.5


def test_an_exception_is_the_futures_and_the_executor_goes_on(executor: Any) -> None:
    pool = executor(1)
    with pytest.raises(LookupError, match="refused in the call"):
        pool.submit(targets.refuse).result(TIMEOUT)
    assert type(pool.submit(targets.leave).exception(TIMEOUT)) is SystemExit
    assert pool.submit(targets.square, 2).result(TIMEOUT) == 4


def test_an_exception_from_elsewhere_brings_its_traceback_as_its_cause(remote_executor: Any) -> None:
    exc = remote_executor(1).submit(targets.refuse).exception(TIMEOUT)
    assert "# this comment is in the traceback" in str(exc.__cause__)


def test_wait_and_as_completed_see_futures_end(executor: Any) -> None:
    pool = executor()
    slow, quick = pool.submit(targets.nap, 1.0), pool.submit(targets.nap, 0.0)
    done, pending = futures.wait([slow, quick], TIMEOUT, futures.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    assert list(futures.as_completed([slow, quick], TIMEOUT))[-1] is slow


def test_a_done_callback_may_submit(executor: Any) -> None:
    pool, second = executor(), futures.Future[int]()

    def go_on(first: Any) -> None:
        pool.submit(targets.square, first.result()).add_done_callback(lambda done: second.set_result(done.result()))

    pool.submit(targets.square, 3).add_done_callback(go_on)
    assert second.result(TIMEOUT) == 81


def test_an_initializer_prepares_every_worker(executor: Any) -> None:
    pool = executor(2, targets.take, ("prepared", 1))
    assert list(pool.map(targets.show, range(20), timeout=TIMEOUT)) == [("prepared", 1)] * 20


def test_a_failing_initializer_breaks_the_executor(executor: Any) -> None:
    pool = executor(2, targets.fail_to_prepare)
    try:
        error = pool.submit(targets.nap, 0.1).exception(TIMEOUT)
        assert isinstance(error, futures.BrokenExecutor)
    except futures.BrokenExecutor:
        pass  # it was broken before the call
    with pytest.raises(futures.BrokenExecutor):
        submit_until_refused(pool)


def submit_until_refused(pool: Any) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        pool.submit(targets.nap, 0.0)


def test_what_has_begun_cannot_be_cancelled_and_what_waits_can(ctx: Any, executor: Any) -> None:
    begun, go = ctx.Event(), ctx.Event()
    pool = executor(1, targets.take, (begun, go))
    first = pool.submit(targets.wait_given)
    assert begun.wait(TIMEOUT)
    rest = [pool.submit(targets.square, n) for n in range(50)]
    assert first.running()
    if ctx.place != "cluster":  # where it ends, see test_limit.py
        assert not first.cancel()
    assert rest[-1].cancel()
    assert rest[-1].cancelled()
    with pytest.raises(futures.CancelledError):
        rest[-1].result()
    go.set()
    assert first.result(TIMEOUT) is True
    assert [future.result(TIMEOUT) for future in rest[:-1]] == [n * n for n in range(49)]
    assert futures.wait(rest, TIMEOUT).not_done == set()


def test_shutdown_waits_for_what_runs_and_can_cancel_the_rest(executor: Any) -> None:
    pool = executor()
    submitted = [pool.submit(targets.nap, 0.05) for _ in range(40)]
    pool.shutdown(cancel_futures=True)
    cancelled = [future for future in submitted if future.cancelled()]
    assert len(cancelled) > 20
    assert [f.result(0) for f in submitted if f not in cancelled] == [0.05] * (40 - len(cancelled))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(targets.square, 1)


def test_shutdown_without_waiting_lets_every_future_end(executor: Any) -> None:
    pool = executor()
    submitted = [pool.submit(targets.nap, 0.01) for _ in range(40)]
    pool.shutdown(wait=False)
    assert [future.result(TIMEOUT) for future in submitted] == [0.01] * 40


def test_asyncio_awaits_calls_in_an_executor(executor: Any) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, targets.square, n) for n in range(20)))

    with executor() as pool:
        assert asyncio.run(asyncio.wait_for(main(), TIMEOUT)) == [n * n for n in range(20)]


def test_wrong_arguments_are_refused_alike(ctx: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        lab.get_executor(ctx.place, 0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        lab.get_executor(ctx.place, 1, 3)
    with pytest.raises(ValueError, match="there is no place 'moon'"):
        lab.get_executor("moon")


def test_what_does_not_pickle_is_the_error_of_its_own_future(remote_executor: Any) -> None:
    pool = remote_executor(1)
    for future in (pool.submit(targets.square, threading.Lock()), pool.submit(targets.unpicklable)):
        assert isinstance(future.exception(TIMEOUT), (TypeError, AttributeError, pickle.PicklingError))
    assert pool.submit(targets.square, 2).result(TIMEOUT) == 4


# What only a fleet can lose


def test_a_killed_worker_loses_no_future(cluster: Any, cluster_executor: Any) -> None:
    begun = cluster.Value("i", 0)
    pool = cluster_executor(2, targets.take, (begun,))
    assert list(pool.map(targets.die_once, range(200), timeout=TIMEOUT)) == list(range(200))
    assert begun.value == 201


@pytest.mark.parametrize("deadly", [targets.die, partial(os._exit, 1)], ids=["a signal", "an exit"])
def test_a_call_that_kills_every_worker_is_lost_alone(cluster_executor: Any, deadly: Callable[[], None]) -> None:
    pool = cluster_executor(2)
    lost, kept = pool.submit(deadly), [pool.submit(targets.square, n) for n in range(20)]
    error = lost.exception(TIMEOUT)
    assert type(error) is CallLost
    assert isinstance(error, WorkerLost)
    assert isinstance(error, BrokenProcessPool)  # what the stdlib's executor raises for it
    assert [future.result(TIMEOUT) for future in kept] == [n * n for n in range(20)]
    assert pool.submit(targets.square, 2).result(TIMEOUT) == 4


def test_workers_that_die_in_their_initializer_are_not_replaced_for_ever(cluster_executor: Any) -> None:
    pool = cluster_executor(1, targets.die)
    with pytest.raises(BrokenClusterPool, match="before it was ready"):
        pool.submit(targets.square, 1).result(TIMEOUT)


def test_an_initializer_that_cannot_be_loaded_breaks_the_executor(cluster_executor: Any, capfd: Any) -> None:
    pool = cluster_executor(1, targets.take, (Unloadable(),))
    with pytest.raises(BrokenClusterPool, match="could not load the program"):
        pool.submit(targets.nap, 1.0).result(TIMEOUT)
    assert "made to fail while loading" in capfd.readouterr().err


def test_a_call_or_a_result_that_cannot_be_loaded_is_lost_alone(cluster_executor: Any) -> None:
    pool = cluster_executor(1)
    for future in (pool.submit(targets.square, Unloadable()), pool.submit(targets.unloadable)):
        with pytest.raises(CallLost, match="made to fail while loading"):
            future.result(TIMEOUT)
    assert pool.submit(targets.square, 2).result(TIMEOUT) == 4


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_ends_every_future(cluster: Any, cluster_executor: Any, how: str) -> None:
    begun, never = cluster.Event(), cluster.Event()
    pool = cluster_executor(1, targets.take, (begun, never))
    running, waiting = pool.submit(targets.wait_given), [pool.submit(targets.square, n) for n in range(20)]
    assert begun.wait(TIMEOUT)
    getattr(pool, how)()
    assert isinstance(running.exception(TIMEOUT), BrokenProcessPool)
    assert waiting[-1].cancelled()
    assert futures.wait(waiting, TIMEOUT).not_done == set()
    pool.shutdown()


def test_closing_the_pool_underneath_leaves_no_future_waiting(cluster_executor: Any) -> None:
    pool = cluster_executor(1)
    submitted = [pool.submit(targets.nap, 0.1) for _ in range(30)]
    pool._pool.terminate()  # what closing the context does
    assert futures.wait(submitted, TIMEOUT).not_done == set()
    assert isinstance(submitted[-1].exception(), BrokenClusterPool)
    with pytest.raises(BrokenClusterPool):
        pool.submit(targets.square, 1)


def test_little_is_ahead_however_quick_the_calls(cluster_executor: Any) -> None:
    pool = cluster_executor(2)
    assert list(pool.map(targets.square, range(3000), timeout=TIMEOUT)) == [n * n for n in range(3000)]
    assert pool._ahead > 3  # it has learnt that the calls are quick
    slow = [pool.submit(targets.nap, 0.03) for _ in range(150)]
    assert sum(future.running() for future in slow) <= 2 * MAX_AHEAD
    for future in slow[:100]:
        future.result(TIMEOUT)
    assert pool._ahead == 3  # and that they are not any more


def test_workers_of_an_executor_that_nobody_holds_end_when_it_has_nothing_to_do(cluster: Any) -> None:
    pool = ClusterExecutor(2)
    last = pool.submit(targets.nap, 0.3)
    assert pool._pool is not None
    workers = pool._pool.workers()
    del pool
    assert last.result(TIMEOUT) == 0.3
    gc.collect()
    for worker in workers:
        worker.join(TIMEOUT)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_shutdown_leaves_no_thread_and_no_key(cluster: Any) -> None:
    store, pattern = cluster.connect().store, f"{cluster.connect().base}pool:*"
    threads, keys = threading.active_count(), store.call("KEYS", pattern)
    with ClusterExecutor(2) as pool:
        list(pool.map(targets.square, range(500)))
        assert len(store.call("KEYS", pattern)) > len(keys)
    assert threading.active_count() <= threads
    assert sorted(store.call("KEYS", pattern)) == sorted(keys)


# At the end of a program


@pytest.mark.parametrize("last", ["", "pool.shutdown(wait=False)"])
def test_a_program_that_ends_first_gets_what_it_submitted(cluster: Any, last: str) -> None:
    done = program(
        cluster,
        f"""
        pool = lab.get_executor("cluster", 2)
        for n in range(60):
            pool.submit(targets.nap, 0.01).add_done_callback(lambda done: print("done", flush=True))
        {last}
        """,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (["done"] * 60, "", 0)


def test_a_call_that_comes_after_the_end_is_refused(cluster: Any) -> None:
    done = program(
        cluster,
        """
        import atexit
        def late():
            try: pool.submit(targets.nap, 0)
            except RuntimeError as exc: print(exc)
        pool = lab.get_executor("cluster", 1)
        """,
        before="import atexit; atexit.register(lambda: late())",
    )
    assert done.stdout == "cannot schedule new futures after shutdown\n", done.stderr
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_worker_that_is_lost_while_shutting_down_and_has_no_successor_ends_its_future() -> None:
    done = program(
        None,
        """
        ctx = lab.get_context("cluster")
        begun = ctx.Event()
        never = ctx.Event()
        pool = lab.get_executor("cluster", 1, targets.take, (begun, never))
        last = pool.submit(targets.wait_given)
        pool.shutdown(wait=False)
        assert begun.wait(20)
        other = ctx.Process(target=targets.nap, args=(5,))
        thread = threading.Thread(target=other.start)  # waits for the only slot, and is first in line
        thread.start()
        while not ctx.connect().store.call("LLEN", "crosshost:celery:processes"): time.sleep(0.01)
        pool._pool.workers()[0].kill()
        print(type(last.exception(30)).__name__)
        pool.shutdown()
        thread.join()
        other.kill()
        print("ended")
        """,
        CROSSHOST_HOSTS="1",
        CROSSHOST_SLOTS="1",
        CROSSHOST_MOST_PROCESSES="1",
        CROSSHOST_START_TIMEOUT="3",
        CROSSHOST_LEASE="2",
    )
    assert done.stdout.split() == ["NotEnoughSlots", "ended"], done.stderr
    assert "could not be replaced" in done.stderr
    assert "Traceback" not in done.stderr


def program(cluster: Any, body: str, before: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, on the tests' fleet if one is given."""
    if cluster is not None:
        cluster.connect()
        env = variables.leading_to(cluster.settings) | env
    text = "\n".join(line.removeprefix("        ") for line in body.splitlines())
    head = f"{before}\nimport threading, time\nimport lab\nfrom tests.cluster import futures_targets as targets\n"
    return subprocess.run(
        [sys.executable, "-c", head + text], env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )


# CPython's own tests


@pytest.mark.skipif(not suite.available(), reason="this interpreter was packaged without CPython's test suite")
@pytest.mark.parametrize(("part", "at_least"), AT_LEAST.items())
def test_the_tests_of_cpython_that_apply_pass(cluster: Any, part: str, at_least: int) -> None:
    cluster.connect()
    env = variables.leading_to(cluster.settings)
    command = [sys.executable, "-m", "conformance.futures", "--on", "cluster", "--part", part]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    passed = re.search(r"^cluster: (\d+) of \1 that apply pass", done.stdout, re.MULTILINE)
    assert passed, done.stdout + done.stderr
    assert int(passed[1]) >= at_least
