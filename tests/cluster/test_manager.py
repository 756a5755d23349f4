"""Managers: the contract in all three places, and what only the cluster's does."""

from __future__ import annotations

import copy
import gc
import pickle
import queue
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from multiprocessing import ProcessError, managers
from typing import Any

import pytest

from lab.cluster import managers as cluster_managers
from lab.errors import ObjectGone, WrongKey
from tests.cluster import manager_targets as targets
from tests.cluster.contract_targets import TIMEOUT
from tests.cluster.test_contract import finish, start


class ClusterBank(cluster_managers.BaseManager):
    """A user's manager, on the cluster."""


targets.register(ClusterBank)


def open_bank(cluster: Any) -> Any:
    """A manager with the registered classes, whose methods no type checker knows."""
    return ClusterBank(ctx=cluster)


@pytest.fixture(scope="module")
def by_place() -> Iterator[dict[str, Any]]:
    """The managers that the tests of each place share: starting a server process takes time."""
    made: dict[str, Any] = {}
    yield made
    for manager in made.values():
        manager.shutdown()


@pytest.fixture
def manager(ctx: Any, by_place: dict[str, Any]) -> Any:
    """A manager of each place."""
    if ctx.place not in by_place:
        by_place[ctx.place] = ctx.Manager()
    return by_place[ctx.place]


@pytest.fixture
def ours(cluster: Any) -> Iterator[Any]:
    """A manager of the cluster."""
    with cluster.Manager() as manager:
        yield manager


@pytest.fixture
def bank(remote: Any) -> Iterator[Any]:
    """A manager of one's own classes, in the places whose managers have proxies."""
    kind = ClusterBank if remote.place == "cluster" else targets.Bank
    with kind(ctx=remote) as bank:
        yield bank


# Containers


def test_a_managed_list_does_what_a_list_does(manager: Any) -> None:
    numbers = manager.list([3, 1])
    numbers.append(2)
    numbers += [5]
    numbers.sort()
    assert numbers[:] == [1, 2, 3, 5]
    assert (len(numbers), numbers[-1], numbers.pop(0), 5 in numbers, numbers.index(3)) == (4, 5, 1, True, 1)
    numbers[0] = 9
    del numbers[1]
    assert list(numbers) == [9, 5]
    assert list(reversed(numbers)) == [5, 9]
    assert str(numbers) == "[9, 5]"


def test_a_managed_dict_does_what_a_dict_does(manager: Any) -> None:
    ages = manager.dict({"Ann": 30}, Bob=40)
    ages["Cid"] = 50
    assert ages.setdefault("Ann", 1) == 30
    assert sorted(ages.items()) == [("Ann", 30), ("Bob", 40), ("Cid", 50)]
    assert ages.pop("Bob") == 40
    assert [key for key in ages] == list(ages.keys()) == ["Ann", "Cid"]  # noqa: C416 - to iterate is the test
    assert (ages.get("Dan"), "Ann" in ages, len(ages)) == (None, True, 2)
    assert ages.copy() == {"Ann": 30, "Cid": 50}


def test_keys_that_are_equal_are_one_key_whatever_their_type(manager: Any) -> None:
    mapping = manager.dict()
    mapping[1], mapping[1.0], mapping[True] = "int", "float", "bool"
    assert mapping.copy() == {1: "bool"}


def test_a_namespace_a_value_and_an_array_hold_what_was_set(manager: Any) -> None:
    space, value, array = manager.Namespace(x=1), manager.Value("i", 2), manager.Array("d", [1.0, 2.0])
    space.y = "why"
    del space.x
    value.value += 1
    array[1] = 7.5
    assert (space.y, hasattr(space, "x"), value.value, list(array)) == ("why", False, 3, [1.0, 7.5])


def test_what_a_method_raises_arrives_as_it_is(manager: Any) -> None:
    with pytest.raises(IndexError):
        manager.list()[0]
    with pytest.raises(KeyError, match="nobody"):
        manager.dict()["nobody"]
    with pytest.raises(ValueError, match="not in"):
        manager.list().remove(1)
    with pytest.raises(AttributeError):
        manager.Namespace().missing  # noqa: B018 - it raises


def test_a_dict_that_changes_its_size_during_iteration_says_so(manager: Any) -> None:
    mapping = manager.dict({1: 1, 2: 2})
    keys = iter(mapping)
    mapping.clear()
    with pytest.raises(RuntimeError, match="changed size"):
        next(keys)


def test_processes_that_append_to_the_same_list_at_once_lose_nothing(ctx: Any, manager: Any) -> None:
    numbers = manager.list()
    finish(*[start(ctx, targets.append_numbers, numbers, name, 100) for name in "ab"])
    assert sorted(numbers) == [(name, i) for name in "ab" for i in range(100)]
    assert [i for name, i in numbers if name == "b"] == list(range(100))


def test_processes_that_set_keys_of_the_same_dict_at_once_lose_nothing(ctx: Any, manager: Any) -> None:
    mapping = manager.dict()
    finish(*[start(ctx, targets.put_inside, mapping, i, str(i)) for i in range(2)])
    assert mapping.copy() == {i: str(i) for i in range(2)}


def test_a_proxy_inside_a_proxy_is_the_same_object(ctx: Any, manager: Any) -> None:
    inner = manager.list(["here"])
    outer = manager.dict(inner=inner)
    finish(start(ctx, targets.append_inside, outer, "inner", "there"))
    assert inner[:] == outer["inner"][:] == ["here", "there"]
    twice = manager.list([outer])
    twice[0]["inner"].append("deep")
    assert inner[-1] == "deep"


def test_an_inner_object_outlives_the_proxies_of_it(manager: Any) -> None:
    outer = manager.list([manager.list([1])])
    gc.collect()
    outer[0].append(2)
    assert outer.pop()[:] == [1, 2]


@pytest.mark.parametrize("kind", ["Queue", "manager.Queue"])
def test_a_proxy_may_be_sent_through_a_queue(ctx: Any, manager: Any, kind: str) -> None:
    inbox = ctx.Queue() if kind == "Queue" else manager.Queue()
    numbers = manager.list()
    child = start(ctx, targets.append_to_what_comes, inbox, 7)
    inbox.put(numbers)
    finish(child)
    assert numbers[:] == [7]


def test_a_proxy_may_be_the_argument_of_a_pools_call(ctx: Any, manager: Any) -> None:
    with ctx.Pool(1) as pool:
        assert pool.apply(targets.sorted_keys, (manager.dict(b=1, a=2),)) == ["a", "b"]


def test_a_dict_may_be_iterated_by_a_child_on_the_cluster(cluster: Any, ours: Any) -> None:
    with cluster.Pool(1) as pool:
        assert pool.apply(sorted, (ours.dict(b=1, a=2),)) == ["a", "b"]


# What waits


def test_a_managed_lock_excludes_other_processes(ctx: Any, manager: Any) -> None:
    lock, value = manager.Lock(), manager.Value("i", 0)
    finish(*[start(ctx, targets.count_under_lock, lock, value, 20) for _ in range(2)])
    assert value.value == 40


def test_a_lock_taken_by_a_process_that_has_ended_is_for_others_to_release(ctx: Any, manager: Any) -> None:
    lock = manager.Lock()
    finish(start(ctx, targets.acquire, lock))
    assert not lock.acquire(False)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()
    assert lock.acquire(True, 5)


def test_an_rlock_may_be_taken_again_and_not_given_back_too_often(manager: Any) -> None:
    lock = manager.RLock()
    with lock, lock:
        pass
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_bounded_semaphore_refuses_a_place_too_many(manager: Any) -> None:
    places = manager.BoundedSemaphore(1)
    assert places.acquire(True, 1)
    assert not places.acquire(True, 0.05)
    places.release()
    with pytest.raises(ValueError, match="released too many times"):
        places.release()


def test_a_condition_wakes_who_waits(ctx: Any, manager: Any) -> None:
    condition, state = manager.Condition(), manager.Value("i", 0)
    child = start(ctx, targets.set_when_told, condition, state)
    with condition:
        assert condition.wait_for(lambda: state.value == 1, TIMEOUT)
        state.value = 2
        condition.notify_all()
        assert condition.wait_for(lambda: state.value == 3, TIMEOUT)
    finish(child)
    with pytest.raises(RuntimeError):
        condition.notify()


def test_who_waits_at_a_barrier_goes_on_when_all_are_there(ctx: Any, manager: Any) -> None:
    barrier, places = manager.Barrier(3), manager.list()
    children = [start(ctx, targets.meet, barrier, places) for _ in range(2)]
    places.append(barrier.wait(TIMEOUT))
    finish(*children)
    assert sorted(places) == [0, 1, 2]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_a_managed_queue_is_bounded_and_joined(ctx: Any, manager: Any) -> None:
    jobs, done = manager.JoinableQueue(2), manager.list()
    jobs.put(1)
    jobs.put(2)
    assert (jobs.qsize(), jobs.full()) == (2, True)
    with pytest.raises(queue.Full):
        jobs.put(3, timeout=0.05)
    child = start(ctx, targets.consume, jobs, done)
    for i in range(3, 10):
        jobs.put(i, timeout=TIMEOUT)
    jobs.join()
    assert done[:] == list(range(1, 10))
    jobs.put(None)
    finish(child)
    jobs.task_done()
    with pytest.raises(ValueError, match="too many times"):
        jobs.task_done()
    with pytest.raises(queue.Empty):
        jobs.get_nowait()


def test_a_managed_pool_maps(manager: Any) -> None:
    with manager.Pool(2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
        assert pool.apply_async(abs, (-3,)).get(TIMEOUT) == 3
        assert list(pool.imap(abs, [-4, 5])) == [4, 5]


# Proxies


def test_a_proxy_shows_itself_and_its_object(remote: Any) -> None:
    with remote.Manager() as manager:
        numbers: Any = manager.list([1])
        event = manager.Event()
        assert isinstance(event, managers.BaseProxy)
        assert repr(numbers).startswith("<ListProxy object, typeid 'list' at 0x")
        assert repr(event).startswith("<EventProxy object, typeid 'Event' at 0x")
        assert str(numbers) == "[1]"
        assert numbers._getvalue() == [1]
        assert copy.deepcopy(numbers) == [1]
        assert numbers._callmethod("__len__") == 1


def test_what_comes_out_is_a_copy_and_what_goes_in_was_copied(remote: Any) -> None:
    with remote.Manager() as manager:
        mine = [1]
        outer = manager.list([mine])
        mine.append(2)
        outer[0].append(3)
        assert outer[:] == [[1]]
        outer.append(mine)
        mine.append(4)
        assert outer[1] == [1, 2]


def test_what_is_not_exposed_or_cannot_be_made_is_a_remote_error(remote: Any) -> None:
    with remote.Manager() as manager:
        with pytest.raises(managers.RemoteError):
            manager.list()._callmethod("__class__")
        with pytest.raises(managers.RemoteError):
            manager.list(5)
        with pytest.raises(managers.RemoteError):
            manager.Lock()._getvalue()


def test_a_manager_that_was_shut_down_is_an_error_for_its_proxies(remote: Any) -> None:
    manager = remote.Manager()
    numbers, lock = manager.list([1]), manager.Lock()
    manager.shutdown()
    for call in (numbers.pop, lock.acquire):
        with pytest.raises((OSError, EOFError)):
            call()
    with pytest.raises(AssertionError):
        manager.list()
    with pytest.raises(ProcessError):
        manager.start()
    manager.shutdown()
    manager.join()


# Classes of one's own


def test_a_registered_class_is_shared_with_what_it_exposes(bank: Any, remote: Any) -> None:
    account, closed = bank.Account(10), bank.Sealed(3)
    assert (account.deposit(5), account.get(), closed.get()) == (15, 15, 3)
    finish(start(remote, targets.deposit, account, 2))
    assert account.get() == 17
    assert not hasattr(closed, "deposit")
    assert not hasattr(account, "_hidden")
    with pytest.raises(LookupError, match="no such account"):
        account.fail()
    with pytest.raises(managers.RemoteError):
        account._callmethod("_hidden")


def test_an_object_that_does_not_pickle_can_be_registered(bank: Any) -> None:
    assert list(bank.squares(4)) == [0, 1, 4, 9]
    assert list(bank.Account(2).lines()) == [0, 1]


def test_what_a_factory_returns_twice_is_one_object(bank: Any) -> None:
    bank.get_shelf().put(5)
    assert bank.get_shelf().get() == 5
    bank.get_ledger().update(closed=2)
    assert bank.get_ledger().get("closed") == 2


def test_methods_of_a_registered_class_lose_nothing_on_the_cluster(cluster: Any) -> None:
    with open_bank(cluster) as bank:
        account = bank.Account()
        finish(*[start(cluster, targets.deposit, account, 10) for _ in range(3)])
        assert account.get() == 30


def test_a_process_killed_inside_a_method_leaves_the_object_as_it_was(cluster: Any) -> None:
    with open_bank(cluster) as bank:
        account = bank.Account(7)
        child = start(cluster, targets.die_inside, account)
        child.join(TIMEOUT)
        assert child.exitcode == -signal.SIGKILL
        assert account.deposit(1) == 8


def test_an_object_that_does_not_pickle_is_asked_in_the_process_that_has_it(cluster: Any) -> None:
    with open_bank(cluster) as bank, cluster.Pool(1) as pool:
        numbers = bank.squares(4)
        assert pool.apply(next, (numbers,)) == 0
        assert next(numbers) == 1
        assert pool.apply(list, (numbers,)) == [4, 9]
        with pytest.raises(queue.Empty):
            pool.apply(targets.take_from, (bank.get_shelf(), 0.1))
        with pytest.raises(managers.RemoteError, match="Unserializable"):
            pool.apply(targets.take_from, (bank.get_locker(), 0.1))


def test_a_managed_pool_is_used_and_ended_from_another_process(cluster: Any, ours: Any) -> None:
    pool, inbox = ours.Pool(2), ours.Queue()
    finish(start(cluster, targets.use_pool, pool, inbox))
    assert inbox.get(True, TIMEOUT) == [[1, 2], 3, [4, 5]]
    with pytest.raises(ValueError, match="not running"):
        pool.map(abs, [1])


def test_who_asks_an_object_whose_process_is_killed_is_told(cluster: Any, ours: Any) -> None:
    inbox = ours.Queue()
    child = start(cluster, targets.lend, inbox)
    numbers, napper = inbox.get(True, TIMEOUT)
    assert (next(numbers), next(numbers)) == (0, 1)
    threading.Timer(0.2, child.kill).start()
    with pytest.raises(ObjectGone, match="has ended"):
        next(napper)  # asked before, and waiting
    with pytest.raises(ObjectGone, match="has ended"):
        next(numbers)


def test_a_manager_without_a_server_says_so(cluster: Any) -> None:
    bank = open_bank(cluster)
    with pytest.raises(NotImplementedError, match="no server"):
        bank.get_server()
    with pytest.raises(NotImplementedError, match="no server"):
        bank.connect()
    with pytest.raises(AssertionError, match="not started"):
        bank.Account()
    with pytest.warns(UserWarning, match="initializer is not run"):
        bank.start(print)
    bank.shutdown()


# The cluster


def test_processes_on_several_hosts_share_one_dict(cluster: Any, ours: Any) -> None:
    guests, barrier = ours.dict(), ours.Barrier(6)
    finish(*[start(cluster, targets.sign_in, guests, barrier) for _ in range(6)])  # more than a host has slots
    assert len(guests) > 1


def test_a_killed_holder_of_a_managed_lock_frees_it(cluster: Any, ours: Any) -> None:
    for lock in (ours.Lock(), ours.RLock()):
        held = ours.Event()
        holder = start(cluster, targets.hold, lock, held)
        assert held.wait(TIMEOUT)
        assert not lock.acquire(False)
        holder.kill()
        assert lock.acquire(True, TIMEOUT)
        lock.release()
        holder.join(TIMEOUT)


def test_a_slow_call_is_not_overtaken_for_ever_by_quick_ones(cluster: Any, ours: Any) -> None:
    numbers, changing, stop = ours.list([5, 4, 3]), cluster.Event(), cluster.Event()
    child = start(cluster, targets.change_until, numbers, changing, stop)
    assert changing.wait(TIMEOUT)
    begun = time.monotonic()
    numbers.sort(key=targets.slowly)  # 60 ms, in which the child changes the list hundreds of times
    assert time.monotonic() - begun < 5
    assert child.is_alive()
    stop.set()
    finish(child)


def test_threads_of_one_process_share_a_managed_list(ours: Any) -> None:
    numbers = ours.list()
    workers = [threading.Thread(target=targets.append_numbers, args=(numbers, name, 50)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT)
    assert len(numbers) == 200


def test_two_proxies_of_one_rlock_count_together(ours: Any) -> None:
    locks = ours.dict(lock=ours.RLock())
    assert locks["lock"].acquire()
    gc.collect()
    assert locks["lock"].acquire(True, 1)
    locks["lock"].release()
    locks["lock"].release()
    with pytest.raises(RuntimeError):
        locks["lock"].release()


def test_a_condition_may_share_its_lock(cluster: Any, ours: Any) -> None:
    lock = ours.Lock()
    full, empty = ours.Condition(lock), ours.Condition(lock)
    with pytest.raises(RuntimeError, match="un-acquired"):
        full.wait(0.01)
    finish(start(cluster, targets.acquire, lock))
    lock.release()  # what another took: from here on it is nobody's, and counts as nobody's
    with lock:
        assert not full.wait(0.01)
        child = start(cluster, targets.notify, lock, full)
        assert full.wait(TIMEOUT)  # the first to let go of the lock, or the child would notify nobody
        assert not empty.wait(0.01)
    finish(child)


def test_a_lock_whose_holder_failed_is_free(cluster: Any, ours: Any) -> None:
    lock = ours.Lock()
    child = start(cluster, targets.acquire_and_fail, lock)
    child.join(TIMEOUT)
    assert child.exitcode == 1
    assert lock.acquire(True, TIMEOUT)


def test_a_method_that_calls_its_own_object_through_a_proxy_is_an_error_and_no_hang(ours: Any) -> None:
    numbers = ours.list([2, 1])
    with pytest.raises(RuntimeError, match="of the same object"):
        numbers.sort(key=numbers.index)
    assert numbers[:] == [2, 1]


def test_a_manager_does_not_pickle(ours: Any) -> None:
    with pytest.raises(TypeError, match="proxies"):
        pickle.dumps(ours)


# What stays in Redis, and for how long


def count(manager: Any) -> int:
    gc.collect()
    return int(manager._number_of_objects())


def test_an_object_to_which_nothing_refers_is_deleted(ours: Any) -> None:
    inner = ours.list()
    outer = ours.dict(inner=inner, queue=ours.Queue())
    event = ours.Event()
    assert count(ours) == 4
    del event
    assert count(ours) == 3
    del inner
    assert count(ours) == 3  # outer refers to it
    del outer["inner"]
    assert count(ours) == 2
    kept = outer["queue"]
    del outer
    assert count(ours) == 1  # not what was taken out of it
    kept.put(1)
    assert kept.get() == 1
    del kept
    assert count(ours) == 0


def test_an_object_that_a_child_took_out_of_a_container_is_kept_for_it(cluster: Any, ours: Any) -> None:
    outer, taken, emptied, told = ours.list([ours.list([5])]), ours.Event(), ours.Event(), ours.Queue()
    child = start(cluster, take_then_read, outer, taken, emptied, told)
    assert taken.wait(TIMEOUT)
    del outer[:]
    emptied.set()
    assert told.get(timeout=TIMEOUT) == [5]
    finish(child)


def take_then_read(outer: Any, taken: Any, emptied: Any, told: Any) -> None:
    inner = outer[0]
    taken.set()
    emptied.wait(TIMEOUT)
    told.put(inner[:])


def test_an_error_is_not_kept_by_the_call_that_raised_it(ours: Any) -> None:
    gc.disable()
    try:
        for call in (partial(ours.list([1]).sort, key=targets.refuse), ours.Queue().get_nowait):
            try:
                call()
            except (targets.Refusal, queue.Empty) as exc:
                error = weakref.ref(exc)
            assert error() is None
    finally:
        gc.enable()


def test_a_shut_down_manager_leaves_no_key(cluster: Any) -> None:
    run = cluster.connect()
    before = set(run.store.call("SMEMBERS", run.key("keys")))
    with cluster.Manager() as manager:
        kept = [manager.list([1]), manager.Lock(), manager.Queue(1), manager.Barrier(2), manager.Condition()]
        kept[2].put(kept[0])
        with kept[1], kept[4]:
            pass
        made = set(run.store.call("SMEMBERS", run.key("keys"))) - before
        assert made
    assert not made & set(run.store.call("SMEMBERS", run.key("keys")))
    assert not run.store.call("EXISTS", *made)


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "Event", "Barrier", "Queue"])
def test_who_waits_in_another_process_when_the_manager_is_shut_down_is_told(cluster: Any, kind: str) -> None:
    manager, ready, ends = cluster.Manager(), cluster.Event(), cluster.Queue()
    if kind == "Barrier":
        call = manager.Barrier(2).wait
    elif kind == "Queue":
        call = manager.Queue().get
    elif kind == "Event":
        call = manager.Event().wait
    else:
        lock = getattr(manager, kind)()
        lock.acquire()
        call = lock.acquire
    child = start(cluster, targets.say_how_it_ends, call, ready, ends)
    assert ready.wait(TIMEOUT)
    time.sleep(0.1)  # long enough to be waiting; if it is not yet, the shutdown is found all the same
    manager.shutdown()
    assert ends.get(timeout=TIMEOUT) == "ObjectGone"
    finish(child)


def test_a_state_that_was_altered_in_redis_is_refused_unread(cluster: Any, ours: Any, tmp_path: Any) -> None:
    store, numbers, other = cluster.connect().store, ours.list([1]), ours.list([2])
    state = store.call("HGET", other._id, "state")
    store.call("HSET", numbers._id, "state", state, "version", 9)  # signed, but for another object
    with pytest.raises(WrongKey):
        numbers[:]


def test_a_forged_question_to_a_resident_object_is_refused_and_the_next_one_answered(cluster: Any, capfd: Any) -> None:
    run = cluster.connect()
    with open_bank(cluster) as bank, cluster.Pool(1) as pool:
        numbers = bank.squares(4)
        assert pool.apply(next, (numbers,)) == 0
        run.store.call("RPUSH", run.key("calls", run.me), bytes(32) + pickle.dumps(("", numbers, "__next__", (), {})))
        assert pool.apply(next, (numbers,)) == 1
    assert "refused unread" in capfd.readouterr().err


def test_a_proxy_of_another_run_finds_nothing(ours: Any) -> None:
    numbers = ours.list([1])
    foreign = pickle.loads(
        pickle.dumps(numbers).replace(numbers._id.encode(), numbers._id.replace("root", "toor").encode())
    )
    with pytest.raises(ObjectGone, match="is gone"):
        foreign[:]
