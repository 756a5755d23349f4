"""A limit on a call, in every place; and what only a fleet can end: a call that runs, with its process and nothing else."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import signal
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import pytest

import lab
from lab import limit
from lab.errors import CallOverdue, LabError
from tests.cluster import limit_targets as targets
from tests.kit.processes import alive
from tests.kit.wait import until

TIMEOUT = 30.0


@contextmanager
def counted_pool(ctx: Any, processes: int = 2, *more: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A pool, and two values: what has begun, what has ended."""
    begun, ended = ctx.Value("i", 0), ctx.Value("i", 0)
    with ctx.Pool(processes, targets.take, (begun, ended, *more)) as pool:
        yield pool, begun, ended


@contextmanager
def counted_executor(ctx: Any, workers: int = 2, *more: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The same with an executor."""
    begun, ended = ctx.Value("i", 0), ctx.Value("i", 0)
    with lab.get_executor(ctx.place, workers, targets.take, (begun, ended, *more)) as executor:
        yield executor, begun, ended


# What every place does


def test_a_call_in_time_is_as_without_a_limit(ctx: Any) -> None:
    square = lab.limited(targets.square, timeout=TIMEOUT, retries=2)
    with ctx.Pool(2) as pool:
        expected = [n * n for n in range(30)]
        assert pool.map(square, range(30)) == expected
        assert pool.map(square, range(30), chunksize=7) == expected
        assert list(pool.imap(square, range(30), 4)) == expected
        assert pool.starmap(lab.limited(pow, TIMEOUT), [(2, 3), (3, 2)]) == [8, 9]
        assert pool.apply(lab.limited(dict, TIMEOUT), (), {"timeout": 1, "retries": 2}) == {"timeout": 1, "retries": 2}
    with lab.get_executor(ctx.place, 2) as executor:
        assert executor.submit(square, 7).result(TIMEOUT) == 49
        assert list(executor.map(square, range(30), chunksize=4, timeout=TIMEOUT)) == expected


def test_a_call_that_takes_longer_is_a_timeout_that_names_it(ctx: Any) -> None:
    with counted_pool(ctx) as (pool, begun, _):
        late = pool.apply_async(lab.limited(targets.sleep, 0.3), (1, "a", b"b"), {"c": [1, 2]})
        with pytest.raises(TimeoutError, match=r"^sleep\(1, 'a', b'b', c=<list>\) was not done after 0\.3 s") as error:
            late.get(TIMEOUT)
        assert isinstance(error.value, CallOverdue)
        assert pool.map(targets.square, range(20)) == [n * n for n in range(20)]
        assert begun.value == 1
    with counted_executor(ctx) as (executor, _, _):
        assert type(executor.submit(lab.limited(targets.sleep, 0.3), 1).exception(TIMEOUT)) is CallOverdue
        assert executor.submit(targets.square, 3).result(TIMEOUT) == 9


def test_retries_are_for_what_fails_too_and_the_last_attempt_says_so(ctx: Any) -> None:
    with counted_pool(ctx) as (pool, begun, _), pytest.raises(LookupError, match="attempt 3") as error:
        pool.apply_async(lab.limited(targets.refuse, retries=2)).get(TIMEOUT)
    assert error.value.__notes__ == ["This was the last of 3 attempts."]
    assert begun.value == 3


def test_what_is_no_limit_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="must be callable, not 3"):
        lab.limited(3, 1.0)  # type: ignore[arg-type]
    for timeout in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout must be more than 0 seconds"):
            lab.limited(targets.square, timeout)
    with pytest.raises(ValueError, match="retries must be 0 or more"):
        lab.limited(targets.square, retries=-1)
    with pytest.raises(TypeError, match="retries must be an integer"):
        lab.limited(targets.square, retries=1.5)  # type: ignore[arg-type]


def test_a_limited_function_has_its_name_and_pickles() -> None:
    square = pickle.loads(pickle.dumps(lab.limited(targets.square, 2, 1)))
    assert (square.__name__, square.timeout, square.retries, square(3)) == ("square", 2, 1, 9)


def test_in_the_program_itself_the_alarm_ends_what_waits_and_is_left_as_it_was() -> None:
    heard = threading.Event()
    handler = signal.signal(signal.SIGALRM, lambda *_: heard.set())
    timer = signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        with pytest.raises(CallOverdue, match="its time was up") as error:
            lab.limited(time.sleep, 0.1)(TIMEOUT)
        assert error.value.__cause__ is not None  # where it was
        assert heard.wait(TIMEOUT)  # who had set the alarm before hears it
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.parametrize(("outer", "inner", "ends"), [(0.2, TIMEOUT, "outer"), (TIMEOUT, 0.2, "inner")])
def test_of_two_limits_the_sooner_one_ends_the_call(outer: float, inner: float, ends: str) -> None:
    within = lab.limited(time.sleep, inner)

    def call() -> str:
        try:
            within(TIMEOUT)
        except CallOverdue:
            return "inner"
        return "neither"

    try:
        ended = lab.limited(call, outer)()
    except CallOverdue:
        ended = "outer"
    assert ended == ends
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL


def test_in_a_thread_a_late_call_fails_when_it_has_ended_and_says_why() -> None:
    ctx = lab.get_context("threads")
    with counted_pool(ctx) as (pool, _, ended), pytest.raises(CallOverdue, match="in a thread"):
        pool.apply_async(lab.limited(targets.sleep, 0.1), (0.3,)).get(TIMEOUT)
    assert ended.value == 1


# What is ended with its process


@pytest.mark.parametrize("call", [targets.keep_the_gil, targets.swallow], ids=["C code", "except Exception"])
def test_a_late_call_ends_whatever_it_does(cluster: Any, call: Callable[[Any], Any]) -> None:
    with counted_pool(cluster) as (pool, begun, ended):
        begin = time.monotonic()
        with pytest.raises(CallOverdue, match=r"its process on host .* was ended"):
            pool.apply_async(lab.limited(call, 0.3), (60,)).get(TIMEOUT)
        assert time.monotonic() - begin < TIMEOUT
        assert pool.map(targets.square, range(20), 1) == [n * n for n in range(20)]
        assert (begun.value, ended.value) == (1, 0)


def test_what_its_process_held_besides_runs_once(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, begun, ended):
        pool.map(targets.square, range(2000), 1)  # both processes know how quick a call is, and take many at once
        results = [pool.apply_async(targets.tally, (n,)) for n in range(1, 200)]
        late = pool.apply_async(lab.limited(targets.tally, 0.3), (0,))
        results += [pool.apply_async(targets.tally, (n,)) for n in range(200, 400)]
        assert [result.get(TIMEOUT) for result in results] == [n * n for n in range(1, 400)]
        with pytest.raises(CallOverdue):
            late.get(TIMEOUT)
        assert (begun.value, ended.value) == (1, 399)


def test_a_limited_call_that_keeps_the_gil_behind_quick_ones_costs_none_of_them(cluster: Any) -> None:
    with counted_pool(cluster, 1) as (pool, _, ended):
        pool.map(targets.square, range(2000), 1)
        results = [pool.apply_async(targets.tally, (n,)) for n in range(1, 50)]
        late = pool.apply_async(lab.limited(targets.keep_the_gil_at_once, 0.3), (60,))
        results += [pool.apply_async(targets.tally, (n,)) for n in range(50, 100)]
        assert [result.get(TIMEOUT) for result in results] == [n * n for n in range(1, 100)]
        with pytest.raises(CallOverdue):
            late.get(TIMEOUT)
        assert ended.value == 99


def test_a_late_call_is_tried_again_in_another_process(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, begun, _):
        assert pool.apply_async(lab.limited(targets.slow_until, 0.3, 2), (3,)).get(TIMEOUT) == 3
        begun.value = 0
        with pytest.raises(CallOverdue, match="in the last of 2 attempts"):
            pool.apply_async(lab.limited(targets.slow_until, 0.3, 1), (3,)).get(TIMEOUT)
        assert begun.value == 2


def test_attempts_that_failed_and_that_were_late_count_together(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, begun, _):
        call = functools.partial(lab.limited, targets.fail_then_late_then_well, 0.3)
        assert pool.apply_async(call(2)).get(TIMEOUT) == 3
        begun.value = 0
        with pytest.raises(CallOverdue, match="in the last of 2 attempts"):
            pool.apply_async(call(1)).get(TIMEOUT)
        assert begun.value == 2


def test_of_a_map_the_calls_have_their_limits_one_by_one(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, begun, ended):
        results = pool.imap(lab.limited(targets.tally, 0.4), [1, 2, 0, 3, 4], chunksize=5)
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(CallOverdue, match=r"tally\(0\)"):
            next(results)
        assert list(results) == [9, 16]
        with pytest.raises(CallOverdue):
            pool.map(lab.limited(targets.tally, 0.4), [5, 0, 6], chunksize=3)
        until(lambda: ended.value == 6, "every call but the late ones has run, once")
        assert begun.value == 2


def test_a_lock_that_a_late_call_held_is_free(cluster: Any) -> None:
    lock = cluster.Lock()
    with counted_pool(cluster, 2, lock) as (pool, _, _):
        with pytest.raises(CallOverdue):
            pool.apply_async(lab.limited(targets.hold, 0.3)).get(TIMEOUT)
        assert lock.acquire(timeout=TIMEOUT)
        lock.release()


def test_a_call_that_takes_the_alarm_for_itself_fails_when_it_has_ended(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, _, _), pytest.raises(CallOverdue, match="nobody can end from outside"):
        pool.apply_async(lab.limited(targets.with_alarm, 0.2), (0.5,)).get(TIMEOUT)


def test_a_limit_in_a_limited_call_ends_it_as_well(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, _, _):
        with pytest.raises(CallOverdue, match=r"sleep\(60\)"):
            pool.apply_async(lab.limited(targets.nested, 50), (60, 0.3)).get(TIMEOUT)
        with pytest.raises(CallOverdue, match=r"nested\(60, 50\)"):
            pool.apply_async(lab.limited(targets.nested, 0.3), (60, 50)).get(TIMEOUT)
        assert pool.apply_async(lab.limited(targets.nested, 20), (0, 10)).get(TIMEOUT) == "neither"


def test_an_executors_late_call_ends_alone(cluster: Any) -> None:
    with counted_executor(cluster) as (executor, begun, ended):
        late = executor.submit(lab.limited(targets.sleep, 0.3), 60)
        rest = [executor.submit(targets.square, n) for n in range(50)]
        assert type(late.exception(TIMEOUT)) is CallOverdue
        assert [future.result(TIMEOUT) for future in rest] == [n * n for n in range(50)]
        results = executor.map(lab.limited(targets.tally, 0.4), [1, 0, 2], chunksize=3)
        assert next(results) == 1
        with pytest.raises(CallOverdue):
            next(results)
        assert (begun.value, ended.value) == (2, 2)


# Cancelling what runs


@pytest.mark.parametrize("call", [targets.sleep, targets.keep_the_gil], ids=["waits", "C code"])
def test_cancel_ends_a_call_that_runs_and_the_executor_goes_on(cluster: Any, call: Callable[[Any], Any]) -> None:
    with counted_executor(cluster) as (executor, begun, ended):
        executor.submit(int).result(TIMEOUT)
        workers = executor._pool.workers()
        running = executor.submit(call, 60)
        until(lambda: begun.value == 1, "it has begun")
        assert running.running()
        asked = time.monotonic()
        assert running.cancel()
        assert running.cancelled()
        assert running.cancel()
        with pytest.raises(futures.CancelledError):
            running.result()
        until(lambda: any(not alive(worker.pid) for worker in workers), "its process has ended")
        assert time.monotonic() - asked < 5  # a second, on a machine that is not busy
        assert list(executor.map(targets.square, range(100))) == [n * n for n in range(100)]
        assert (begun.value, ended.value) == (1, 0)


def test_cancelling_costs_no_other_call(cluster: Any) -> None:
    with counted_executor(cluster, 3) as (executor, begun, ended):
        assert len(list(executor.map(targets.square, range(2000)))) == 2000  # it is known how quick a call is
        doomed = [executor.submit(targets.tally, 0) for _ in range(2)]
        others = [executor.submit(targets.tally, n) for n in range(1, 300)]
        until(lambda: begun.value == 2, "they have begun")
        assert [future.cancel() for future in doomed] == [True, True]
        assert [future.result(TIMEOUT) for future in others] == [n * n for n in range(1, 300)]
        assert (begun.value, ended.value) == (2, 299)


def test_a_call_that_ends_before_the_signal_comes_says_nothing(cluster: Any, capfd: Any) -> None:
    executor: Any = lab.get_executor("cluster", 1)
    with executor:
        supervisor, pool = executor.submit(targets.supervisor).result(TIMEOUT), executor._pool
        running = executor.submit(time.sleep, 0.5)
        until(lambda: pool._calls.held_by(pool.workers()[0].process_id), "a worker has it")
        os.kill(supervisor, signal.SIGSTOP)
        try:
            assert running.cancel()
            time.sleep(1.5)  # it ends, and is refused; who would pass on the signal, and what it prints, is held up
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert executor.submit(targets.square, 2).result(TIMEOUT) == 4
    assert capfd.readouterr().err == ""


def test_what_is_cancelled_before_it_is_taken_never_runs(cluster: Any) -> None:
    with counted_executor(cluster, 1) as (executor, begun, ended):
        first = executor.submit(targets.sleep, 60)
        until(lambda: begun.value == 1, "the only worker is busy")
        behind = [executor.submit(targets.tally, n) for n in range(1, 4)]
        assert behind[0].running()  # handed over
        assert [future.cancel() for future in (behind[0], behind[-1])] == [True, True]
        first.cancel()
        assert behind[1].result(TIMEOUT) == 4
        assert ended.value == 1


def test_who_waits_is_told_of_a_call_that_was_cancelled_while_it_ran(cluster: Any) -> None:
    with counted_executor(cluster, 1) as (executor, begun, _):
        running, called = executor.submit(targets.sleep, 60), threading.Event()
        running.add_done_callback(lambda _: called.set())
        until(lambda: begun.value == 1, "it has begun")
        canceller = threading.Timer(0.2, running.cancel)
        canceller.start()
        assert futures.wait([running], TIMEOUT).done == {running}
        assert list(futures.as_completed([running], TIMEOUT)) == [running]
        assert called.wait(TIMEOUT)
        canceller.join()


def test_a_call_that_has_ended_cannot_be_cancelled(cluster: Any) -> None:
    with counted_executor(cluster, 1) as (executor, _, _):
        done = executor.submit(targets.square, 3)
        assert done.result(TIMEOUT) == 9
        assert not done.cancel()
        assert not done.cancelled()


def test_who_stops_taking_results_of_a_map_ends_nothing_that_runs(cluster: Any) -> None:
    with counted_executor(cluster, 2) as (executor, begun, ended):
        results = executor.map(targets.sleep, [0.0, 0.5, 0.5])
        assert next(results) == 0.0
        until(lambda: begun.value >= 2, "another runs")
        results.close()
        until(lambda: ended.value == begun.value >= 2, "it comes to its end")


def test_asyncio_ends_a_call_whose_time_is_up(cluster: Any) -> None:
    with counted_executor(cluster, 1) as (executor, begun, ended):

        async def main() -> int:
            loop = asyncio.get_running_loop()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.run_in_executor(executor, targets.sleep, 60), 0.5)
            return await asyncio.wait_for(loop.run_in_executor(executor, targets.square, 5), TIMEOUT)

        assert asyncio.run(main()) == 25
        assert ended.value == 0
        assert begun.value <= 1


def test_an_executor_whose_last_call_was_cancelled_shuts_down(cluster: Any) -> None:
    with counted_executor(cluster, 2) as (executor, begun, _):
        running = executor.submit(targets.sleep, 60)
        until(lambda: begun.value == 1, "it has begun")
        running.cancel()
        asked = time.monotonic()
    assert time.monotonic() - asked < TIMEOUT


def test_a_process_that_somebody_else_ends_by_the_alarm_loses_no_call(cluster: Any) -> None:
    with counted_pool(cluster) as (pool, begun, _):
        result = pool.apply_async(targets.slow_until, (2,))
        until(lambda: begun.value == 1, "it has begun")
        os.kill(pool.apply(os.getpid), 0)  # they are on this machine
        for worker in list(pool._pool):
            os.kill(worker.pid, signal.SIGALRM)
        assert result.get(TIMEOUT) == 2
        assert pool.map(targets.square, range(50), 1) == [n * n for n in range(50)]


def test_limits_are_errors_of_the_lab() -> None:
    error = pickle.loads(pickle.dumps(CallOverdue("it was late", "wait")))
    assert isinstance(error, LabError)
    assert isinstance(error, TimeoutError)
    assert str(error) == "it was late\nwait"


def test_what_has_an_attribute_of_every_name_is_no_limited_call() -> None:
    assert not limit.is_limited(xmlrpc.client.ServerProxy("http://127.0.0.1:1").anything)
    assert limit.is_limited(functools.partial(functools.partial(lab.limited(targets.square, 1), 2)))


def test_a_wrapper_that_takes_over_what_a_function_has_keeps_the_limit() -> None:
    class Delayed:  # as scikit-learn's
        def __init__(self, function: Any) -> None:
            self.function = function
            made: Any = self
            functools.update_wrapper(made, function)

    limited = lab.limited(targets.square, 1)
    assert Delayed(limited).function is limited
    assert limit.is_limited(Delayed(limited))
    assert pickle.loads(pickle.dumps(limited)).timeout == 1
