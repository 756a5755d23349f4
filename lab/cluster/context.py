"""ClusterContext: the switchboard, a multiprocessing context whose processes run on the hosts of a fleet.

It is a subclass of the stdlib's own ``BaseContext`` and replaces the factories one by one; what it does not name is the
stdlib's.
"""

from __future__ import annotations

import statistics
import time
import weakref
from dataclasses import replace
from functools import cached_property
from multiprocessing import context, util
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lab import byvalue, session
from lab.cluster import connection, current, managers, pool, process, queues, share, sharedctypes, synchronize
from lab.errors import CallEnded, LabError, NoWorkers, WrongKey, WrongVersion
from lab.fleet.distance import Distance
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import HostInfo, list_hosts
from lab.program import unshared
from lab.settings import Settings
from lab.store import run as runs
from lab.store.run import Run
from lab.store.store import Store
from lab.version import __version__

if TYPE_CHECKING:
    from celery import Celery


class ClusterContext(context.BaseContext):
    """The multiprocessing context of a fleet; connects, or starts an embedded fleet, when first used.

    Differs from multiprocessing: ``cpu_count()`` counts the slots of the fleet.
    ``close()`` ends the run, and the embedded fleet with it; leaving the interpreter does the same.

    Args:
        settings: Where the fleet is; from the environment when None.
    """

    _name = "spawn"  # what get_start_method() says: a child begins as a spawned one does, and inherits no state
    place = "cluster"
    Process = process.Process

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._fleet: EmbeddedFleet | None = None
        self.durable = False
        """Whether an embedded fleet starts again what dies of it."""
        self.delay_line = False
        """Whether an embedded fleet is started with what ``go_away`` needs."""
        self.tell = True
        """Whether to say so at the terminal when an embedded fleet takes its time to start."""
        self._distance: Distance | None = None
        self.pools: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def settings(self) -> Settings:
        """The settings in force; those of the embedded fleet once it runs."""
        if self._settings is None:
            self._settings = Settings.from_env()
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        assert runs.current() is None, "the settings are chosen before the first use"
        self._settings = settings

    @property
    def embedded(self) -> bool:
        """Whether the fleet belongs to this program."""
        return self._fleet is not None or not self.settings.broker_url

    def connect(self) -> Run:
        """This process's run, begun if there is none yet.

        Raises:
            BadSettings, BrokerUnreachable, NoWorkers, WrongKey, FleetFailed: There is no fleet to run on.
        """
        if (run := runs.current()) is not None:
            return run
        settings = self.settings
        if not settings.broker_url:
            # before anything else is registered, so that it is stopped after everything else
            self._fleet = EmbeddedFleet(settings, durable=self.durable, delay_line=self.delay_line, tell=self.tell)
            util.Finalize(None, self._fleet.stop, exitpriority=-200)
            settings = self._settings = replace(self._fleet.start(), host=settings.host)
        settings.require_key()
        store = Store(settings.broker_url, settings.outage, tell=True)
        _check_hosts(store, settings)
        run = Run.as_root(settings, store)
        runs.enter(run)
        session.attach(self)
        byvalue.by_name = unshared.look
        return run

    @cached_property
    def app(self) -> Celery:
        """The Celery app that carries the processes to their hosts."""
        from lab.fleet.engine import make_app

        app: Celery = make_app(self.connect().settings)
        return app

    def close(self) -> None:
        """End the run and the embedded fleet; the context can be used again after it."""
        run, fleet = runs.current(), self._fleet
        if run is not None and run.me == runs.ROOT:
            for unfinished in list(self.pools):
                unfinished.terminate()
            for child in self.active_children():
                if isinstance(child, process.Process):  # the program may have others, of this host
                    child.kill()
                    child.join(run.settings.lease)
            run.close()
            runs.enter(None)
        if self._distance is not None:
            self._distance.close()
            self._distance = None
        if "app" in self.__dict__:
            self.__dict__.pop("app").close()
        if fleet is not None:
            fleet.stop()
            self._fleet = self._settings = None

    def __reduce__(self) -> Any:
        return default_context, ()  # of the process in which it arrives, as for a function that refers to it

    def __enter__(self) -> ClusterContext:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def fleet(self) -> list[HostInfo]:
        """The live hosts."""
        return list_hosts(self.connect().store)

    def show_printed(self, timeout: float = 1.0) -> None:
        """Wait, at the most so many seconds, until what this process's children have printed until now is shown."""
        deadline = time.monotonic() + timeout
        try:
            popens = [popen for popen in self._popens() if popen.returncode is None]
            for popen in popens:
                popen.ask_printed()
            for popen in popens:
                popen.wait_printed(deadline)
        except LabError:
            return  # it is shown later, or whoever uses the fleet next hears of it

    def end_calls(self, why: CallEnded, patience: float = 1.0) -> None:
        """End the calls of all pools and executors of this process, those that run too, and interrupt its other children.

        The pools, and the fleet, go on.

        Args:
            why: What becomes of a call.
            patience: Seconds after which a worker that SIGTERM has not ended is killed.
        """
        workers = [worker for unfinished in list(self.pools) for worker in unfinished.end_calls(why)]
        self.interrupt_children()
        deadline = time.monotonic() + patience
        for worker in workers:
            if worker._popen.wait(max(0.0, deadline - time.monotonic())) is None:
                worker.kill()

    def interrupt_children(self) -> None:
        """Have the children of this process that are in no pool sent SIGINT, wherever they run."""
        for child in self.active_children():
            popen = getattr(child, "_popen", None)
            if isinstance(popen, process.Popen) and not isinstance(child, pool.PoolWorker):
                popen.interrupt()

    def _popens(self) -> list[process.Popen]:
        found = [getattr(child, "_popen", None) for child in self.active_children()]
        return [popen for popen in found if isinstance(popen, process.Popen)]

    def cpu_count(self) -> int:
        """Slots of the fleet: how many processes compute at once. More can be started, as on one host."""
        return sum(host.slots for host in self.fleet())

    def round_trip(self, n: int = 200) -> float:
        """Median seconds of one PING to Redis and back, over n."""
        store, times = self.connect().store, []
        for _ in range(n):
            begun = time.perf_counter()
            store.call("PING")
            times.append(time.perf_counter() - begun)
        return statistics.median(times)

    def go_away(self, rtt: float) -> None:
        """Put the fleet and this program at a distance from Redis, until ``close()``, as if a network were between them.

        Args:
            rtt: Seconds of the round trip.

        Raises:
            BadSettings: There is no delay line between them, or it is in use.
        """
        self.connect()
        self._distance = Distance(self.settings.broker_url, rtt)

    def ping(self, timeout: float = 2.0) -> dict[str, float]:
        """Ask every host's Celery worker for an answer; seconds until it came, by host. Who is silent is missing."""
        found: dict[str, float] = {}
        begun = time.perf_counter()

        def on_reply(reply: dict[str, Any]) -> None:
            found.update({name.partition("@")[0]: time.perf_counter() - begun for name in reply})

        hosts = [f"{host.name}@crosshost" for host in self.fleet()]  # the workers for jobs would answer too
        self.app.control.broadcast(
            "ping", destination=hosts, reply=True, timeout=timeout, limit=len(hosts), callback=on_reply
        )
        return found

    @property
    def transport(self) -> str:
        """How this process talks to Redis, for reports."""
        scheme, _, rest = self.connect().store.address.partition("://")
        return {"unix": "Unix socket", "redis": f"TCP {rest}", "rediss": f"TLS {rest}"}[scheme]

    def Manager(self) -> Any:
        """A started manager: its objects are in Redis, and its proxies may be sent anywhere."""
        manager = managers.SyncManager(ctx=self)
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> Any:
        """A pair of connected ends."""
        return connection.Pipe(self.connect(), duplex)

    def Lock(self) -> Any:
        """A non-recursive lock."""
        return synchronize.Lock(ctx=self)

    def RLock(self) -> Any:
        """A recursive lock."""
        return synchronize.RLock(ctx=self)

    def Condition(self, lock: Any = None) -> Any:
        """A condition variable."""
        return synchronize.Condition(lock, ctx=self)

    def Semaphore(self, value: int = 1) -> Any:
        """A semaphore."""
        return synchronize.Semaphore(value, ctx=self)

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """A semaphore that refuses to exceed its first value."""
        return synchronize.BoundedSemaphore(value, ctx=self)

    def Event(self) -> Any:
        """An event."""
        return synchronize.Event(ctx=self)

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """A barrier."""
        return synchronize.Barrier(parties, action, timeout, ctx=self)

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue with a feeder thread."""
        return queues.Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue that can be joined."""
        return queues.JoinableQueue(maxsize, ctx=self)

    def SimpleQueue(self) -> Any:
        """A queue without a feeder thread."""
        return queues.SimpleQueue(ctx=self)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool of processes; as many as the fleet has slots when None."""
        return pool.Pool(processes, initializer, initargs, maxtasksperchild, context=self)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A shared value without a lock."""
        return sharedctypes.RawValue(self.connect(), typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A shared array without a lock."""
        return sharedctypes.RawArray(self.connect(), typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A shared value."""
        return sharedctypes.Value(typecode_or_type, *args, lock=lock, ctx=self)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A shared array."""
        return sharedctypes.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self)

    def share(self, obj: Any) -> Any:
        """A read-only object that many calls need, brought once to each host: hand over what this returns; its ``value``."""
        return share.share(self.connect(), obj)


def _check_hosts(store: Store, settings: Settings) -> None:
    hosts = list_hosts(store)
    if not hosts:
        raise NoWorkers(
            f"Redis at {store.address} answers, but no worker host is alive on it.",
            "Start one with the same settings:\n  worker --slots 4",
        )
    check_alike(hosts, settings)


def check_alike(hosts: list[HostInfo], settings: Settings) -> None:
    """Refuse hosts whose key or version is not this program's.

    Raises:
        WrongKey, WrongVersion: There is one.
    """
    mine = settings.keyring.first.hex()
    if others := [host for host in hosts if mine not in host.key.split()]:
        raise WrongKey(
            f"This program's authkey ({mine}) is not the one of host {others[0].name} ({others[0].key}).",
            "Give both sides the same CROSSHOST_AUTHKEY or CROSSHOST_AUTHKEY_FILE.",
        )
    if others := [host for host in hosts if host.version != __version__]:
        raise WrongVersion(
            f"This program is Crosshost {__version__}, host {others[0].name} is {others[0].version}.",
            "Bring both to the same version; in containers: docker compose build, then docker compose up",
        )


_default = ClusterContext()
current.enter(_default)


def default_context() -> ClusterContext:
    """The context of this process: there is one, as there is one run."""
    return _default
