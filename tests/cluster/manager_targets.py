"""What the children of the manager's tests run, and the classes they register."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import managers
from typing import Any

from tests.cluster.contract_targets import TIMEOUT


def append_numbers(numbers: Any, name: str, count: int) -> None:
    for i in range(count):
        numbers.append((name, i))


def append_to_what_comes(inbox: Any, item: Any) -> None:
    inbox.get(timeout=TIMEOUT).append(item)


def append_inside(outer: Any, key: str, item: Any) -> None:
    outer[key].append(item)


def put_inside(outer: Any, key: Any, value: Any) -> None:
    outer[key] = value


def count_under_lock(lock: Any, value: Any, times: int) -> None:
    for _ in range(times):
        with lock:
            before = value.value
            time.sleep(0.001)  # opens the window on purpose
            value.value = before + 1


def acquire(lock: Any) -> None:
    lock.acquire()


def acquire_and_fail(lock: Any) -> None:
    lock.acquire()
    raise ValueError("made to fail")


def notify(lock: Any, condition: Any) -> None:
    with lock:
        condition.notify()


def hold(lock: Any, held: Any) -> None:
    lock.acquire()
    held.set()
    time.sleep(TIMEOUT)  # until it is killed


def set_when_told(condition: Any, state: Any) -> None:
    with condition:
        state.value = 1
        condition.notify()
        condition.wait_for(lambda: state.value == 2, TIMEOUT)
        state.value = 3
        condition.notify()


def consume(jobs: Any, done: Any) -> None:
    for job in iter(jobs.get, None):
        done.append(job)
        jobs.task_done()


def meet(barrier: Any, places: Any) -> None:
    places.append(barrier.wait(TIMEOUT))


def sorted_keys(mapping: Any) -> list[Any]:
    return sorted(mapping.keys())  # iterating the proxy itself in a child fails in multiprocessing


def sign_in(guests: Any, barrier: Any) -> None:
    barrier.wait(TIMEOUT)
    guests[os.environ["CROSSHOST_HOST"]] = os.getpid()


def deposit(account: Any, times: int) -> None:
    for _ in range(times):
        account.deposit(1)


def say_how_it_ends(call: Any, ready: Any, ends: Any) -> None:
    ready.set()
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - that is the question
        ends.put(type(exc).__name__)
    else:
        ends.put("returned")


def slowly(item: Any) -> Any:
    time.sleep(0.02)
    return item


def change_until(numbers: Any, changing: Any, stop: Any) -> None:
    for i in itertools.count():
        numbers[0] = i
        if i == 100:
            changing.set()
        if i % 100 == 0 and stop.is_set():
            return


class Refusal(Exception):
    """An error that can be referred to weakly."""


def refuse(item: Any) -> Any:
    raise Refusal


class Account:
    """A class of a user's, to register."""

    def __init__(self, balance: int = 0) -> None:
        self.balance = balance

    def deposit(self, amount: int) -> int:
        """Add to the balance, with the window between read and write opened on purpose."""
        before = self.balance
        time.sleep(0.005)
        self.balance = before + amount
        return self.balance

    def fail(self) -> None:
        raise LookupError("no such account")

    def die(self) -> None:
        self.balance = -1
        os.kill(os.getpid(), signal.SIGKILL)

    def get(self) -> int:
        return self.balance

    def lines(self) -> Iterator[int]:
        yield from range(self.balance)

    def _hidden(self) -> None:
        pass


def die_inside(account: Any) -> None:
    account.die()


def take_from(shelf: Any, timeout: float) -> Any:
    return shelf.get(True, timeout)


def use_pool(pool: Any, inbox: Any) -> None:
    with pool:
        found = [pool.map(abs, [-1, 2]), pool.apply_async(abs, (-3,)).get(TIMEOUT), list(pool.imap(abs, [-4, 5]))]
    inbox.put(found)


def lend(inbox: Any) -> None:
    from lab.cluster.managers import BaseManager

    class Lender(BaseManager):
        pass

    Lender.register("squares", squares, SquaresProxy)
    Lender.register("naps", naps, SquaresProxy)
    lender: Any = Lender()
    lender.start()
    inbox.put((lender.squares(9), lender.naps()))
    time.sleep(TIMEOUT)  # until it is killed


def naps() -> Iterator[int]:
    time.sleep(TIMEOUT)
    yield 0


shelf: queue.Queue[int] = queue.Queue()


def get_shelf() -> queue.Queue[int]:
    return shelf


ledger = {"opened": 1}


def get_ledger() -> dict[str, int]:
    return ledger


locker: queue.Queue[Any] = queue.Queue()
locker.put(threading.Lock())


def get_locker() -> queue.Queue[Any]:
    return locker


def squares(count: int) -> Iterator[int]:
    for i in range(count):
        yield i * i


class SquaresProxy(managers.BaseProxy):
    """A user's proxy."""

    _exposed_ = ("__next__",)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        callmethod: Any = self._callmethod
        return callmethod("__next__")


def register(bank: Any) -> None:
    """Register the classes with a class of managers."""
    bank.register("Account", Account, method_to_typeid={"lines": "numbers"})
    bank.register("numbers", proxytype=SquaresProxy, create_method=False)
    bank.register("Sealed", Account, exposed=("get",))
    bank.register("squares", squares, SquaresProxy)
    bank.register("get_shelf", get_shelf)
    bank.register("get_locker", get_locker)
    bank.register("get_ledger", get_ledger, exposed=("get", "update"))


class Bank(managers.BaseManager):
    """A user's manager of the stdlib."""


register(Bank)
