"""Executor.map on the cluster: short calls travel together, and nobody can tell that they do."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.buffers import LEAST
from lab.cluster.futures import CallLost, ClusterExecutor
from lab.errors import CallOverdue
from lab.store.claimcheck import SMALL
from tests.cluster import mapped_targets as targets
from tests.cluster.cluster_targets import Unloadable
from tests.cluster.futures_targets import divide, fail_to_prepare, square
from tests.cluster.mapped_targets import MANY, ODD, RUN, TIMEOUT


class Told:
    """What the workers tell: each run of a call, and that something has begun; and what they wait for.

    Args:
        cluster: The context.
        notes: Where they write the runs down.
    """

    def __init__(self, cluster: Any, notes: Path) -> None:
        self.begun, self.go = cluster.Event(), cluster.Event()
        notes.touch()
        self._notes = notes
        self.given = str(notes), cluster.Value("i", 0), self.begun, self.go

    @property
    def runs(self) -> list[int]:
        """How often each call was run."""
        noted = Counter(n for (n,) in RUN.iter_unpack(self._notes.read_bytes()))
        return [noted[n] for n in range(MANY)]


@pytest.fixture
def told(cluster: Any, tmp_path: Path) -> Told:
    return Told(cluster, tmp_path / "runs")


@pytest.fixture
def executor(told: Told) -> Iterator[Callable[..., ClusterExecutor]]:
    """Makes executors, and shuts them down."""
    made = []

    def make(max_workers: int = 2, **options: Any) -> ClusterExecutor:
        made.append(ClusterExecutor(max_workers, initializer=targets.take, initargs=told.given, **options))
        return made[-1]

    yield make
    told.go.set()
    for each in made:
        each.shutdown(cancel_futures=True)


def sent(pool: Any) -> int:
    """How many messages with calls the pool has sent."""
    return int(pool._pool._calls._sent)


def test_short_calls_travel_together_and_are_in_their_order(executor: Any) -> None:
    pool = executor()
    assert list(pool.map(square, range(3000), timeout=TIMEOUT)) == [n * n for n in range(3000)]
    assert sent(pool) < 1000
    assert list(pool.map(divide, range(10), range(1, 9), timeout=TIMEOUT)) == [n / (n + 1) for n in range(8)]
    assert list(pool.map(square, [])) == []


def test_calls_that_take_their_time_travel_alone(executor: Any) -> None:
    pool = executor()
    assert list(pool.map(targets.nap, [0.01] * 40, timeout=TIMEOUT)) == [0.01] * 40
    assert sent(pool) == 40


def test_of_an_error_only_its_own_call_is_told(executor: Any, told: Told) -> None:
    results = executor().map(targets.refuse_odd, range(MANY), timeout=TIMEOUT)
    assert list(islice(results, ODD)) == list(range(ODD))
    with pytest.raises(LookupError, match=f"refused {ODD}") as caught:
        next(results)
    assert "# this comment is in the traceback" in str(caught.value.__cause__)
    assert list(results) == []


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (targets.refuse_odd, LookupError),
        (targets.leave_odd, SystemExit),
        (targets.unpicklable_odd, TypeError),
        (targets.unloadable_odd, CallLost),
        (targets.die_odd, CallLost),
        (targets.exit_odd, CallLost),
    ],
)
def test_what_one_call_does_costs_no_other_its_result(executor: Any, told: Told, function: Any, error: Any) -> None:
    pool = executor()
    results = pool.map(function, range(MANY), timeout=TIMEOUT)
    pool.shutdown()
    runs = told.runs
    assert [n for n in range(MANY) if not runs[n] and n != ODD] == []
    assert list(islice(results, ODD)) == list(range(ODD))
    with pytest.raises(error):
        next(results)


@pytest.mark.parametrize(
    ("argument", "error"), [(targets.Unpicklable(), "while pickling"), (Unloadable(), "made to fail while loading")]
)
def test_an_argument_that_does_not_arrive_costs_no_other_call(
    executor: Any, told: Told, argument: Any, error: str
) -> None:
    pool = executor()
    results = pool.map(targets.count, [argument if n == ODD else n for n in range(MANY)], timeout=TIMEOUT)
    pool.shutdown()
    assert told.runs == [int(n != ODD) for n in range(MANY)]
    assert list(islice(results, ODD)) == list(range(ODD))
    with pytest.raises(Exception, match=error):
        next(results)


def test_a_call_that_kills_is_given_up_soon_and_no_other(executor: Any, told: Told) -> None:
    pool = executor(1)
    pool.map(targets.die_odd, range(MANY), timeout=TIMEOUT)
    pool.shutdown()
    runs = told.runs
    # Once with others, and thrice by itself; it is not always known which of some short calls killed, so a few times more.
    assert 3 <= runs[ODD] <= 8
    assert min(runs) == 1


def test_a_call_that_waits_holds_up_neither_what_is_before_nor_behind_it(executor: Any, told: Told) -> None:
    pool = executor(3)
    results = pool.map(targets.wait_odd, range(MANY), timeout=TIMEOUT)
    assert list(islice(results, ODD)) == list(range(ODD))  # while it waits
    assert told.begun.wait(TIMEOUT)  # which the one behind it tells
    told.go.set()
    assert list(results) == list(range(ODD, MANY))
    assert told.runs == [1] * MANY


@pytest.mark.parametrize("weight", [bytearray(1), bytearray(2 * SMALL), np.zeros(LEAST), np.zeros(2 * SMALL)])
def test_what_was_answered_before_a_worker_died_is_not_run_again(
    cluster: Any, executor: Any, told: Told, weight: Any
) -> None:
    pool = executor(3)
    weights = [weight if n == ODD else [0] for n in range(MANY)]
    results = pool.map(targets.wait_odd_and_die_once, range(MANY), weights, timeout=TIMEOUT)
    assert list(islice(results, ODD)) == list(range(ODD))
    assert told.begun.wait(TIMEOUT)  # which the one behind it tells
    told.go.set()
    assert list(results) == list(range(ODD, MANY))
    assert told.runs == [2 if n == ODD else 1 for n in range(MANY)]
    pool.shutdown()
    run = cluster.connect()
    assert run.store.call("KEYS", run.key("luggage", "*")) == []  # in which the large ones were


def test_a_limit_in_a_call_ends_that_call_alone(executor: Any, told: Told) -> None:
    pool = executor()
    results = pool.map(targets.limit_odd, range(MANY), timeout=TIMEOUT)
    pool.shutdown()
    assert list(islice(results, ODD)) == list(range(ODD))
    with pytest.raises(CallOverdue, match="the last of 2 attempts"):
        next(results)
    assert told.runs == [2 if n == ODD else 1 for n in range(MANY)]


def test_each_call_has_copies_of_its_own(executor: Any) -> None:
    pool, things = executor(), [1]
    assert list(pool.map(targets.length_with_one_more, [things] * 300, timeout=TIMEOUT)) == [2] * 300
    assert things == [1]
    results = list(pool.map(targets.same, range(300), timeout=TIMEOUT))
    assert len({id(result) for result in results}) == 300
    arrays = list(pool.map(targets.filled, range(300), timeout=TIMEOUT))
    assert [(array.min(), array.max()) for array in arrays] == [(n, n) for n in range(300)]


def test_the_first_calls_run_while_the_input_is_read(executor: Any, told: Told) -> None:
    def source() -> Iterator[int]:
        yield 0
        assert told.begun.wait(TIMEOUT)
        yield 1

    assert list(executor().map(targets.told, source(), timeout=TIMEOUT)) == [0, 1]


def test_an_input_that_raises_is_the_callers_and_what_was_read_runs(executor: Any, told: Told) -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise LookupError("no more")

    pool = executor()
    with pytest.raises(LookupError, match="no more"):
        pool.map(targets.count, source())
    pool.shutdown()
    assert told.runs[:20] == [1] * 20


def test_the_results_have_their_time_and_then_what_waits_is_cancelled(executor: Any, told: Told) -> None:
    pool = executor(1)
    results = pool.map(targets.wait_first, range(MANY), timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    handed_over = len(pool._running)
    told.go.set()
    pool.shutdown()
    assert sum(told.runs) == handed_over


@pytest.mark.parametrize("how", ["close", "forget"])
def test_who_stops_taking_results_cancels_what_waits(executor: Any, told: Told, how: str) -> None:
    pool = executor(1)
    results = pool.map(targets.wait_first, chain([1], range(MANY)), timeout=TIMEOUT)
    assert next(results) == 1
    assert told.begun.wait(TIMEOUT)
    if how == "close":
        results.close()
    del results
    told.go.set()
    pool.shutdown()
    assert 2 <= sum(told.runs) < MANY // 2  # what was handed over


def test_shutdown_runs_what_nobody_has_asked_for(executor: Any, told: Told) -> None:
    pool = executor()
    pool.map(targets.count, range(MANY))
    pool.shutdown()
    assert told.runs == [1] * MANY
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(square, [1])


def test_shutdown_can_cancel_what_waits(executor: Any, told: Told) -> None:
    pool = executor(1)
    results = pool.map(targets.wait_first, range(MANY), timeout=TIMEOUT)
    assert told.begun.wait(TIMEOUT)
    pool.shutdown(wait=False, cancel_futures=True)
    told.go.set()
    assert list(islice(results, 2)) == [0, 1]  # those were handed over
    with pytest.raises(futures.CancelledError):
        next(results)


def test_ending_the_workers_is_the_error_of_all_that_is_not_done(executor: Any, told: Told) -> None:
    pool = executor(1)
    results = pool.map(targets.wait_first, range(MANY), timeout=TIMEOUT)
    assert told.begun.wait(TIMEOUT)
    pool._break("It was broken.")
    with pytest.raises(BrokenProcessPool, match="It was broken"):
        next(results)
    with pytest.raises(BrokenProcessPool):
        pool.map(square, [1])


def test_a_failing_initializer_is_the_error_of_a_map(cluster: Any) -> None:
    pool = ClusterExecutor(1, initializer=fail_to_prepare)
    with pytest.raises(BrokenProcessPool):
        list(pool.map(targets.nap, [0.1] * 10, timeout=TIMEOUT))
    pool.shutdown()


def test_the_iterator_does_not_keep_the_executor(cluster: Any) -> None:
    pool, gone = ClusterExecutor(1), threading.Event()
    weakref.finalize(pool, gone.set)
    results = pool.map(square, range(100), timeout=TIMEOUT)
    assert next(results) == 0
    del pool
    assert list(islice(results, 98)) == [n * n for n in range(1, 99)]
    gc.collect()
    assert gone.wait(TIMEOUT)
    assert list(results) == [99 * 99]


def test_a_call_counts_as_one_for_a_worker_that_is_replaced(executor: Any) -> None:
    pool = executor(1, max_tasks_per_child=5)
    processes = list(pool.map(targets.where, range(20), timeout=TIMEOUT))
    assert {processes.count(one) for one in processes} == {5}
