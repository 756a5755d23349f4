"""What the tests of delivery are made of: Celery workers, the log of what they did, a producer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType

from celery import Celery

from tests import ROOT
from tests.kit.processes import die_with_us
from tests.kit.wait import until


class Workers:
    """Celery workers on one broker, and the log of what their tasks did; they end with the ``with`` block."""

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
                    [sys.executable, "-m", "celery", "-A", "tests.kit.celery_app", "worker", *options, "-n", f"w{n}@test",
                     "-l", "INFO"],
                    env={**self._env, **({"DELIVERY_BROKER": url} if url else {}), **env},
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_us,
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

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
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
