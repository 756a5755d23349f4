"""The judge: runs each class of the suite in a process of its own, and ends those that make no progress."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from conformance.source import PLACE
from lab.errors import LabError
from lab.fleet.embedded import EmbeddedFleet
from lab.settings import Settings

EXIT_TIMEOUT = 20.0
HOSTS, SLOTS = 2, 16
"""Size of the embedded fleet: tests hold up to eight processes at once, beside the pool or manager of their class."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        status: pass, fail (an assertion), error (another exception), timeout, crash, notrun, skip (by the suite itself).
        why: The exception, or where it hung.
        attempts: How many times it was run.
    """

    status: str
    why: str = ""
    seconds: float = 0.0
    attempts: int = 1

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.status in ("pass", "skip")


class Ground:
    """What a place needs before a test can run there: a fleet for the cluster, started here unless one is configured."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._settings = Settings.from_env()
        self._fleet: EmbeddedFleet | None = None
        self.env: dict[str, str] = {}

    def __enter__(self) -> Ground:
        self.env = {**os.environ, PLACE: self.place}
        if self.place == "cluster" and not self._settings.broker_url:
            self._fleet = EmbeddedFleet(replace(self._settings, hosts=HOSTS, slots=SLOTS))
            settings = self._fleet.start()
            own = {"CROSSHOST_BROKER_URL": settings.broker_url, "CROSSHOST_AUTHKEY_FILE": self._fleet.authkey_file}
            self.env = {name: value for name, value in self.env.items() if name != "CROSSHOST_AUTHKEY"} | own
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._fleet is not None:
            self._fleet.stop()

    @property
    def command(self) -> list[str]:
        """What runs tests here."""
        return [sys.executable, "-m", "conformance.runner"]

    def renew(self) -> None:
        """After a hang: give the next test a fleet whose slots are free."""
        if self._fleet is not None:
            self._fleet.stop()
            self.__enter__()


class Runner:
    """A process of ``conformance.runner``, in a session of its own, so that what it leaves behind can be ended too."""

    def __init__(self, ground: Ground, timeout: float, *args: str) -> None:
        self._log = tempfile.TemporaryFile()
        self._read_end, write_end = os.pipe()
        hang = max(1.0, timeout - 2)
        self.process = subprocess.Popen(
            [*ground.command, str(write_end), str(hang), *args],
            pass_fds=[write_end], env=ground.env, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.close(write_end)
        self._timeout = timeout

    def events(self) -> Iterator[dict[str, Any]]:
        """Its events, until it ends or is silent for too long; that is an event too."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._read_end, selectors.EVENT_READ)
            while True:
                if not selector.select(self._timeout):
                    yield {"event": "silent"}
                    return
                if not (data := os.read(self._read_end, 1 << 16)):
                    yield {"event": "gone"}
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                yield from map(json.loads, lines)

    def log(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def end(self, patience: float) -> None:
        """Wait for its exit, kill what is left of its session."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._read_end)
        self._log.close()


def all_tests(ground: Ground) -> list[tuple[str, str]]:
    """Class and name of every test that the suite has for a place."""
    runner = Runner(ground, 60.0)
    try:
        for event in runner.events():
            if event["event"] == "tests":
                return [(kind, test) for kind, test in event["tests"]]
        raise LabError(f"The suite could not be loaded in the place {ground.place}:\n{runner.log()[-3000:]}")
    finally:
        runner.end(EXIT_TIMEOUT)


def run_class(ground: Ground, kind: str, tests: list[str], timeout: float) -> Iterator[tuple[str, Outcome]]:
    """Run tests of one class; what hangs or crashes is named, and the rest goes on in another process.

    A test that makes no progress for ``timeout`` seconds is killed.

    Yields:
        Name of a test, and its outcome.
    """
    left = list(tests)
    while left:
        runner = Runner(ground, timeout, kind, *left)
        current, begun, fixture, lost = "", time.monotonic(), None, None
        try:
            for event in runner.events():
                if event["event"] == "begin":
                    current, begun = event["test"], time.monotonic()
                elif event["event"] == "end":
                    left.remove(event["test"])
                    current = ""
                    yield event["test"], Outcome(event["status"], event["why"], event["seconds"])
                elif event["event"] == "fixture":
                    fixture = Outcome(event["status"], f"setting up the class: {event['why']}")
                elif event["event"] == "done":
                    fixture = fixture or Outcome("error", "was not run")
                    yield from ((test, fixture) for test in left)
                    left = []
                    break
                else:
                    lost = _lost(runner, event["event"] == "silent", round(time.monotonic() - begun, 1))
        finally:
            runner.end(0.0 if left else EXIT_TIMEOUT)
        if lost:
            named = [current] if current else left  # between tests, or before the first: none of them can be run
            yield from ((test, lost) for test in named)
            left = [test for test in left if test not in named]
            ground.renew()


def _lost(runner: Runner, silent: bool, seconds: float) -> Outcome:
    if silent:
        return Outcome("timeout", _where(runner.log()), seconds)
    return Outcome("crash", f"exit code {runner.process.wait()}", seconds)


def _where(log: str) -> str:
    """The innermost line of the suite at which the main thread stood."""
    main_thread = log.rpartition("Timeout (")[2].rpartition("Thread 0x")[2]
    found = re.search(r'_test_multiprocessing\.py", (line \d+ in \w+)', main_thread)
    return f"no progress, at {found[1]}" if found else "no progress"
