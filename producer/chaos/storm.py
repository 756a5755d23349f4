"""The storm: what is broken, and when, by a seed; and how each thing is broken on this machine."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lab.errors import BrokerUnreachable
from lab.fleet.hosts import list_hosts
from lab.store.store import Store
from producer.chaos.ledger import Ledger

VICTIMS = ("host", "supervisor", "forker", "process")


def plan(dice: random.Random, kills: int, restarts: int, cuts: int, seconds: float) -> list[tuple[float, str]]:
    """When, in seconds from the beginning, and what; in order of time."""
    what = [dice.choice(VICTIMS) for _ in range(kills)] + ["redis"] * restarts + ["connections"] * cuts
    return sorted((dice.uniform(0.05, 0.95) * seconds, name) for name in what)


class Storm:
    """Breaks parts of an embedded fleet, which starts them again.

    Args:
        dice: Chooses among victims.
        store: Redis, without patience: it will be gone.
        pool: The pool whose workers are hit.
        ledger: Where each blow is noted.
    """

    def __init__(self, dice: random.Random, store: Store, pool: Any, ledger: Ledger) -> None:
        self._dice, self._store, self._pool, self._ledger = dice, store, pool, ledger
        self._recover, pool._calls.recover = pool._calls.recover, self._left
        self._how: dict[str, Callable[[], None]] = {
            "host": self._host, "supervisor": self._supervisor, "forker": self._forker, "process": self._process,
            "redis": self._redis, "connections": self._connections,
        }  # fmt: skip

    def strike(self, what: str) -> bool:
        """Break something of a kind. False if there was nothing to break just now."""
        before = len(self._ledger.blows)
        with suppress(BrokerUnreachable, ProcessLookupError, subprocess.CalledProcessError):
            self._how[what]()
        return len(self._ledger.blows) > before

    def _blow(self, what: str, victims: list[Any], pid: int) -> None:
        held = {worker.process_id: self._pool._calls.held_by(worker.process_id) for worker in victims}
        os.kill(pid, 0)  # ProcessLookupError: somebody was faster
        self._ledger.strike(what, held)
        os.kill(pid, signal.SIGKILL)

    def _left(self, worker: str, *how: Any) -> Any:
        """As the pool puts back what a dead worker had taken: enter that."""
        self._ledger.left(worker, self._pool._calls.held_by(worker))
        return self._recover(worker, *how)

    def _host(self) -> None:
        hosts = list_hosts(self._store)
        if len(hosts) < 2:
            return  # the last one stays: with no host at all, a fleet has nobody to hand work to
        host = self._dice.choice(hosts)
        self._blow("host", self._workers_of(host.name), host.pid)

    def _supervisor(self) -> None:
        worker = self._dice.choice(self._workers())
        self._blow("supervisor", self._workers_of(worker.host), _parent(self._forker_of(worker)))

    def _forker(self) -> None:
        worker = self._dice.choice(self._workers())
        self._blow("forker", self._workers_of(worker.host), self._forker_of(worker))

    def _process(self) -> None:
        worker = self._dice.choice(self._workers())
        self._forker_of(worker)
        self._blow("process", [worker], worker.pid)

    def _forker_of(self, worker: Any) -> int:
        """The forker of a worker's host.

        Excluded: killing what is none of the fleet. A worker that has just died may still be listed, its number belong to
        another program, or its parent be init, or the user's session.
        """
        forker = _parent(worker.pid)
        if _parent(_parent(forker)) not in [host.pid for host in list_hosts(self._store)]:
            raise ProcessLookupError
        return forker

    def _workers_of(self, host: str) -> list[Any]:
        return [worker for worker in self._workers() if worker.host == host]

    def _redis(self) -> None:
        info = bytes(self._store.call("INFO", "server"))
        found = re.search(rb"process_id:(\d+)", info)
        assert found
        self._blow("redis", [], int(found[1]))

    def _connections(self) -> None:
        self._ledger.strike("connections")
        self._store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _workers(self) -> list[Any]:
        alive = [worker for worker in self._pool._pool if worker.pid and worker.is_alive()]
        if not alive:
            raise ProcessLookupError
        return alive


def _parent(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)  # noqa: S607
