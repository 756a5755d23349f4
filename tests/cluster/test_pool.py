"""Pool, Executor, Queue, Manager: what one call, item or callback does wrong costs itself, and is told."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import pool as stdlib_pool
from types import SimpleNamespace
from typing import Any

import pytest

import lab
from lab.cluster import managers as cluster_managers
from lab.cluster import pool as pool_module
from lab.cluster.failure import ForeignError
from lab.cluster.pool import PoolWorker
from lab.cluster.pool.room import LAZY_BYTES, MOST_BYTES
from lab.errors import LabError, WorkerLost
from tests.cluster import pool_targets as targets
from tests.cluster.contract_targets import TIMEOUT
from tests.cluster.test_contract import eventually, finish, shown, start

WORKERS = 2


class Tellers(cluster_managers.BaseManager):
    """A manager of objects that stay where they are."""


Tellers.register("Teller", targets.Teller)


@pytest.fixture
def pool(cluster: Any) -> Iterator[Any]:
    """A pool of the cluster."""
    with cluster.Pool(WORKERS) as pool:
        yield pool


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``threading.excepthook`` was given."""
    calls: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: calls.append(args.exc_value))
    return calls


def caught(call: Callable[[], object]) -> BaseException:
    """What a call raises, be it SystemExit."""
    try:
        call()
    except BaseException as exc:  # noqa: BLE001
        return exc
    raise AssertionError("nothing was raised")


def closes(pool: Any) -> bool:
    """Whether close and join return in time."""
    pool.close()
    joiner = threading.Thread(target=pool.join, daemon=True)
    joiner.start()
    joiner.join(TIMEOUT)
    return not joiner.is_alive()


# A worker that has no successor


class AtOnce(threading.Thread):
    """A thread that has done its work before whoever started it goes on."""

    def start(self) -> None:
        self.run()


def test_a_successor_that_fails_at_once_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, told = PoolWorker(target=print), list[LabError]()
    worker.on_failure = told.append
    monkeypatch.setattr(worker, "_Popen", lambda _: 1 / 0, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(pool_module, "threading", SimpleNamespace(**vars(threading) | {"Thread": AtOnce}))
        worker.start()
    worker.join(TIMEOUT)
    assert worker.exitcode == 1
    assert "ZeroDivisionError" in str(told)


# A call that ends its process by an exception


@pytest.mark.parametrize("name", targets.ENDINGS)
def test_a_call_that_ends_its_process_ran_once_and_its_caller_gets_that_exception(cluster: Any, name: str) -> None:
    begun = cluster.Value("i", 0)
    with cluster.Pool(WORKERS, targets.take, (begun,)) as pool:
        error, expected = (
            caught(lambda: pool.apply_async(targets.raise_ending, (name,)).get(TIMEOUT)),
            targets.ENDINGS[name](),
        )
        assert type(error) is type(expected)
        assert str(error) == str(expected)
        assert "in raise_ending" in str(error.__cause__)
        assert type(error.__cause__).__name__ == "RemoteTraceback"
        assert pool.map_async(targets.square, range(20), 1).get(TIMEOUT) == [n * n for n in range(20)]
    assert begun.value == 1


def test_the_exit_of_one_item_fails_its_map_and_keeps_the_others(pool: Any) -> None:
    for error in (
        caught(lambda: pool.map_async(targets.end_at_3, range(8), 2).get(TIMEOUT)),
        caught(lambda: pool.starmap_async(targets.end_at_3, [(n,) for n in range(8)], 1).get(TIMEOUT)),
    ):
        assert (type(error), error.args) == (SystemExit, (3,))
    results = pool.imap(targets.end_at_3, range(6))
    assert [results.next(TIMEOUT) for _ in range(3)] == [0, 1, 2]
    assert type(caught(lambda: results.next(TIMEOUT))) is SystemExit
    assert [results.next(TIMEOUT) for _ in range(2)] == [4, 5]


@pytest.mark.parametrize(
    ("function", "argument", "code"),
    [(targets.make, "ExitsWhilePickled", 4), (targets.square, targets.ExitsWhileLoaded(), 5)],
    ids=["pickling its result", "loading its argument"],
)
def test_a_call_that_exits_while_something_is_pickled_is_told(
    pool: Any, function: Callable[[Any], Any], argument: Any, code: int
) -> None:
    error = caught(lambda: pool.apply_async(function, (argument,)).get(TIMEOUT))
    assert (type(error), error.args) == (SystemExit, (code,))
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


def test_a_result_without_a_pickle_or_a_repr_costs_its_own_call(pool: Any) -> None:
    with pytest.raises(LookupError, match="no words for it"):
        pool.apply_async(targets.make, ("NoWords",)).get(TIMEOUT)
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


def test_an_interrupt_from_outside_is_no_outcome_of_the_call_that_it_meets(cluster: Any) -> None:
    with cluster.Pool(1) as pool:
        pid = pool.apply_async(targets.nap, (0,)).get(TIMEOUT)
        answer = pool.apply_async(targets.nap, (0.5,))
        time.sleep(0.2)
        os.kill(pid, signal.SIGINT)  # the hosts of the embedded fleet are on this machine
        assert answer.get(TIMEOUT) != pid  # done again, by its successor


@pytest.mark.parametrize("code", [0, 3])
def test_an_initializer_that_exits_ends_the_pool_and_is_told(
    cluster: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = cluster.Pool(WORKERS, targets.leave, (code,))
    with pytest.raises(WorkerLost, match=f"exit code {code} before it was ready"):
        pool.map_async(targets.square, [1, 2]).get(TIMEOUT)
    monkeypatch.setattr(pool, "_pool", [])  # as between two of those that end and are started again
    with pytest.raises(WorkerLost, match=f"exit code {code} before it was ready"):
        pool.map(targets.square, [1, 2])
    monkeypatch.undo()
    assert closes(pool)


# Callbacks


def bad(_: Any) -> None:
    raise RuntimeError("in the callback")


CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "apply_async": (lambda p: p.apply_async(targets.square, (3,), callback=bad), 9),
    "map_async": (lambda p: p.map_async(targets.square, [3, 4], callback=bad), [9, 16]),
    "starmap_async": (lambda p: p.starmap_async(targets.square, [(3,)], callback=bad), [9]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_callback_that_raises_is_reported_once_and_costs_nothing_else(
    pool: Any, reported: list[Any], name: str
) -> None:
    call, expected = CALLS[name]
    assert call(pool).get(TIMEOUT) == expected
    assert list(map(str, reported)) == ["in the callback"]
    assert pool.apply_async(targets.square, (2,)).get(TIMEOUT) == 4
    assert closes(pool)


def test_an_error_callback_that_raises_is_reported_once_and_the_error_is_there(pool: Any, reported: list[Any]) -> None:
    for answer in (
        pool.apply_async(targets.fail_at_2, (2,), error_callback=bad),
        pool.map_async(targets.fail_at_2, [1, 2], error_callback=bad),
        pool.starmap_async(targets.fail_at_2, [(2,)], error_callback=bad),
    ):
        with pytest.raises(ValueError, match="two is refused"):
            answer.get(TIMEOUT)
    assert list(map(str, reported)) == ["in the callback"] * 3
    pool.terminate()
    pool.join()


def test_a_callback_that_exits_leaves_the_pool_alive(pool: Any, reported: list[Any]) -> None:
    assert pool.apply_async(targets.square, (3,), callback=sys.exit).get(TIMEOUT) == 9
    assert [type(exc) for exc in reported] == [SystemExit]
    assert pool.apply_async(targets.square, (2,)).get(TIMEOUT) == 4


# Inputs


def failing(error: BaseException) -> Iterator[int]:
    yield from (1, 2)
    raise error


def test_an_input_that_raises_gives_its_error_after_what_came_before(ctx: Any) -> None:
    with ctx.Pool(WORKERS) as pool:
        for imap in (pool.imap, pool.imap_unordered):
            results = imap(targets.square, failing(LookupError("in the input")))
            got = [results.next(TIMEOUT) for _ in range(2)] if imap == pool.imap else []
            assert got in ([], [1, 4])
            with pytest.raises(LookupError, match="in the input"):
                list(results)
        assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


def test_an_input_that_ends_the_thread_which_reads_it_ends_only_itself(pool: Any) -> None:
    results = pool.imap(targets.square, failing(SystemExit(3)))
    assert [results.next(TIMEOUT) for _ in range(2)] == [1, 4]
    assert type(caught(lambda: results.next(TIMEOUT))) is SystemExit
    with pytest.raises(LookupError, match="in the input"):  # of a map, which waits for all its chunks
        pool.map_async(targets.square, targets.Sized(), 1).get(TIMEOUT)
    error = caught(lambda: pool.apply_async(targets.square, (targets.ExitsWhilePickled(),)).get(TIMEOUT))
    assert (type(error), error.args) == (SystemExit, (4,))
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


class Counted:
    """An input of that many items of a size; how many of them were read."""

    def __init__(self, count: int | None, size: int) -> None:
        self.read, self._count, self._size = 0, count, size

    def __iter__(self) -> Iterator[bytes]:
        for n in itertools.count():
            if n == self._count:
                return
            self.read += 1
            yield os.urandom(self._size)


@pytest.mark.parametrize("size", [10, 10_000, 1 << 20])
@pytest.mark.parametrize("unordered", [False, True], ids=["imap", "imap_unordered"])
def test_imap_reads_its_input_about_as_far_ahead_as_a_pipe_would(remote: Any, size: int, unordered: bool) -> None:
    source = Counted(None, size)
    with remote.Pool(WORKERS) as pool:
        results = (pool.imap_unordered if unordered else pool.imap)(targets.slow_len, source)
        for taken in range(1, 41):
            assert results.next(TIMEOUT) == size
            done = results._index  # answered, taken or not
            assert source.read >= taken
            assert source.read - done <= 2 * LAZY_BYTES // size + 3 * WORKERS


def test_a_map_does_not_lie_in_redis_as_a_whole(cluster: Any, pool: Any) -> None:
    answer = pool.map_async(targets.slow_len, [os.urandom(1 << 20) for _ in range(40)], 1)
    worst = 0
    while not answer.ready():
        worst = max(worst, pool._calls.room._bytes)
        time.sleep(0.002)
    assert answer.get() == [1 << 20] * 40
    assert 0 < worst <= MOST_BYTES + (2 << 20)


def test_as_many_calls_as_workers_run_at_once_however_large_they_are(cluster: Any) -> None:
    meet = cluster.Barrier(3)
    with cluster.Pool(3, targets.take, (meet,)) as pool:
        large = [bytes(MOST_BYTES + 1)] * 3
        assert pool.map_async(targets.meet_given, large, 1).get(TIMEOUT) == [MOST_BYTES + 1] * 3


def test_a_pool_that_is_terminated_waits_for_no_room(cluster: Any) -> None:
    source = Counted(None, 1 << 20)
    pool = cluster.Pool(1)
    pool.imap(targets.nap, itertools.chain([60], source))
    assert eventually(lambda: source.read > 0)
    begun = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - begun < 10
    assert source.read < 10


def test_a_pool_that_breaks_ends_an_endless_input_with_its_error(cluster: Any) -> None:
    pool = cluster.Pool(1, targets.leave, (3,))
    with pytest.raises(WorkerLost):
        list(pool.imap(targets.square, itertools.count()))
    assert closes(pool)


# buffersize


@pytest.mark.parametrize("chunksize", [1, 4])
@pytest.mark.parametrize("unordered", [False, True], ids=["imap", "imap_unordered"])
def test_a_buffersize_bounds_what_is_read_beyond_what_was_taken(pool: Any, chunksize: int, unordered: bool) -> None:
    source = Counted(40, 5)
    results = (pool.imap_unordered if unordered else pool.imap)(targets.slow_len, source, chunksize, buffersize=3)
    time.sleep(0.5)
    assert source.read == 3 * chunksize
    next(results)
    assert source.read == 4 * chunksize
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9  # who takes results may call
    assert len(list(results)) == 39
    assert source.read == 40
    assert closes(pool)


def test_a_buffered_imap_has_the_order_the_errors_and_the_timeouts_of_the_other(cluster: Any, pool: Any) -> None:
    results = pool.imap(targets.fail_at_2, range(5), buffersize=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two is refused"):
        next(results)
    assert list(results) == [3, 4]
    slow = pool.imap(targets.nap, [0.5, 0], buffersize=1)
    with pytest.raises(cluster.TimeoutError):
        slow.next(0.05)
    assert len(list(slow)) == 2
    broken = pool.imap(targets.square, failing(LookupError("in the input")), buffersize=2)
    assert [next(broken), next(broken)] == [1, 4]
    with pytest.raises(LookupError, match="in the input"):
        next(broken)
    assert list(pool.imap(targets.square, [], buffersize=2)) == []


def test_a_pool_that_is_joined_reads_on_for_who_still_has_the_iterator_and_for_nobody_else(pool: Any) -> None:
    kept, left = Counted(30, 5), Counted(None, 5)
    results, dropped = (pool.imap(targets.slow_len, source, buffersize=2) for source in (kept, left))
    next(dropped)
    del dropped
    assert closes(pool)
    assert list(results) == [5] * 30
    assert left.read == 3


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("3", TypeError)])
def test_a_buffersize_that_is_none_is_refused_as_by_executors(pool: Any, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="buffersize must be"):
        pool.imap(targets.square, [], buffersize=size)
    executor: Any
    with lab.get_executor("cluster", 1) as executor, pytest.raises(error, match="buffersize must be"):
        executor.map(targets.square, [], buffersize=size)


@pytest.mark.parametrize("chunksize", [1, 4])
def test_an_executors_map_with_a_buffersize_reads_as_results_are_taken(cluster: Any, chunksize: int) -> None:
    executor: Any
    with lab.get_executor("cluster", WORKERS) as executor:
        source = Counted(40, 5)
        results = executor.map(targets.slow_len, source, chunksize=chunksize, buffersize=3)
        assert source.read == 3 * chunksize
        assert next(results) == 5
        assert source.read == 4 * chunksize
        assert list(results) == [5] * 39
        two = executor.map(pow, range(10), itertools.repeat(2), chunksize=chunksize, buffersize=1)
        assert list(two) == [n * n for n in range(10)]
        late = executor.map(targets.nap, [1], timeout=0.05, buffersize=1)
        with pytest.raises(TimeoutError):
            next(late)


# What does not unpickle where it arrives


def is_told(error: BaseException, name: str, where: str = "in raise_unloadable") -> None:
    """The words and the traceback of the exception that could not be had."""
    assert isinstance(error, ForeignError)
    assert isinstance(error, LabError | RuntimeError)
    assert name in str(error)
    assert where in str(error.__cause__)
    assert error.value.endswith(name)


@pytest.mark.parametrize("name", targets.UNLOADABLE)
def test_an_exception_that_cannot_be_loaded_is_told_by_its_words(pool: Any, name: str) -> None:
    is_told(caught(lambda: pool.apply_async(targets.raise_unloadable, (name,)).get(TIMEOUT)), name)
    is_told(caught(lambda: pool.map_async(targets.raise_unloadable, [name]).get(TIMEOUT)), name)
    is_told(caught(lambda: list(pool.imap(targets.raise_unloadable, [name]))), name)
    with lab.get_executor("cluster", 1) as executor:
        error = executor.submit(targets.raise_unloadable, name).exception(TIMEOUT)
    assert error is not None
    is_told(error, name)
    assert isinstance(error, vars(stdlib_pool)["MaybeEncodingError"])  # what the stdlib has for the local one
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


@pytest.mark.parametrize("name", targets.UNLOADABLE)
def test_of_a_group_those_that_can_be_loaded_arrive_as_they_are(pool: Any, name: str) -> None:
    error = caught(lambda: pool.apply_async(targets.raise_group, (name,)).get(TIMEOUT))
    assert isinstance(error, ExceptionGroup)
    assert "in raise_group" in str(error.__cause__)
    fine, foreign = error.exceptions
    assert (type(fine), fine.args) == (ValueError, ("can be had",))
    assert isinstance(foreign, ForeignError)
    assert name in str(foreign)


def test_a_cause_that_cannot_be_loaded_is_in_the_traceback(remote: Any) -> None:
    with remote.Pool(1) as pool, pytest.raises(ValueError, match="with a cause") as error:
        pool.apply_async(targets.raise_chained).get(TIMEOUT)
    assert "TwoArguments: 1 and 2" in str(error.value.__cause__)


def test_a_result_that_cannot_be_loaded_costs_its_own_call(pool: Any) -> None:
    for name, words in (("LoadsNowhere", "made to fail while loading"), ("ExitsWhileLoaded", "SystemExit: 5")):
        with pytest.raises(ForeignError, match=words) as error:
            pool.apply_async(targets.make, (name,)).get(TIMEOUT)
        assert error.value.__cause__ is not None
    assert pool.apply_async(targets.square, (3,)).get(TIMEOUT) == 9


@pytest.mark.parametrize("name", targets.UNLOADABLE)
def test_an_error_of_a_managed_object_that_cannot_be_loaded_is_told(cluster: Any, name: str) -> None:
    with Tellers(ctx=cluster) as manager:
        teller, reply = manager.Teller(), cluster.Queue()  # type: ignore[attr-defined]
        finish(start(cluster, targets.ask, teller, reply, "raise_unloadable", name))
        kind, words, cause = reply.get(timeout=TIMEOUT)
        if name.startswith("OnlyThere"):  # the one that asks is there
            assert (kind, words) == ("OnlyThere", "words")
        else:
            assert kind == "ForeignError"
            assert name in words
        assert "in raise_unloadable" in cause


def test_a_managed_object_that_exits_or_cannot_load_its_arguments_answers(cluster: Any) -> None:
    with Tellers(ctx=cluster) as manager:
        teller, reply = manager.Teller(), cluster.Queue()  # type: ignore[attr-defined]
        for args, kind in (
            (("leave",), "SystemExit"),
            (("make", targets.ExitsWhileLoadedInRoot()), "SystemExit"),
            (("make", "LoadsNowhere"), "ForeignError"),
        ):
            finish(start(cluster, targets.ask, teller, reply, *args))
            assert reply.get(timeout=TIMEOUT)[0] == kind


# Queues


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["and ends", "and goes on"])
@pytest.mark.parametrize("kind", ["generator", "ExitsWhilePickled"])
@pytest.mark.parametrize("maxsize", [0, 3])
@pytest.mark.parametrize("queue", ["Queue", "JoinableQueue"])
def test_an_item_that_does_not_pickle_is_told_and_takes_no_other_with_it(
    cluster: Any, capfd: Any, queue: str, maxsize: int, kind: str, pause: float
) -> None:
    items = getattr(cluster, queue)(maxsize)
    finish(start(cluster, targets.put_all, items, kind, pause))
    told = shown(lambda: capfd.readouterr().err, "pickle" if kind == "generator" else "SystemExit: 4")
    assert told.count("Traceback") == 1
    assert [items.get(timeout=TIMEOUT) for _ in range(2)] == [1, 2]
    if queue == "JoinableQueue":
        for _ in range(2):
            items.task_done()
        joiner = threading.Thread(target=items.join, daemon=True)
        joiner.start()
        joiner.join(TIMEOUT)
        assert not joiner.is_alive()
        with pytest.raises(ValueError, match="too many times"):
            items.task_done()
    if maxsize:
        for n in range(maxsize):
            items.put(n, timeout=TIMEOUT)
        assert items.full()


def test_the_program_itself_may_put_what_does_not_pickle(remote: Any, capfd: Any) -> None:
    items = remote.Queue(2)
    for item in (threading.Lock(), 1, 2):
        items.put(item, timeout=TIMEOUT)
    assert [items.get(timeout=TIMEOUT) for _ in range(2)] == [1, 2]
    assert "pickle" in capfd.readouterr().err.lower()
    simple = remote.SimpleQueue()
    with pytest.raises(Exception, match=r"(?i)pickle"):
        simple.put(threading.Lock())
    simple.put(1)
    assert simple.get() == 1


# Managers


def test_a_manager_tells_of_its_objects(cluster: Any) -> None:
    with cluster.Manager() as manager:
        shared, lock = manager.list([1]), manager.Lock()
        info = manager._debug_info()
        for proxy, kind in ((shared, "builtins.list"), (lock, "Lock")):
            assert f"{proxy._id}:       refcount=1\n    {kind}" in info.replace("lab.cluster.managers.managed.", "")
        assert manager._number_of_objects() == 2


def test_every_manager_has_debug_info(remote: Any) -> None:
    with remote.Manager() as manager:
        shared = manager.dict()
        assert "refcount=1" in manager._debug_info()
        assert manager._number_of_objects() == 1
        del shared
