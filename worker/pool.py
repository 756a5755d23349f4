"""The Celery pool of a host that runs processes: each task of it is a process, which the host's supervisor takes and hosts.

Celery's own pools have a worker process for each task that runs at once. Here a task is the time for which a process lives,
so nothing of it needs to run here: its message is on loan to this worker until the process has ended, and all that passes
is a line to the supervisor and lines back.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerLostError
from kombu.serialization import loads

from lab.errors import LabError
from lab.program import source
from lab.settings import Settings
from lab.store.run import Run
from lab.store.store import Store
from worker.hosted import Refused, claimed_here
from worker.supervisor import Supervisor

log = logging.getLogger("crosshost.worker")

STOP_TIMEOUT = 5.0
"""Seconds that the supervisor has to end its processes and tell of it, when the host stops."""

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""What the ids of runs and processes are made of: they become parts of names of keys, and of lines in the log."""

_BasePool: Any = BasePool


class Supervision:
    """The supervisor, as the worker sees it: a process and a socket to it.

    Args:
        settings: The host's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.pid = 0
        self.socket: socket.socket
        self.start()

    def start(self) -> None:
        """Start it: as a fork as long as this process has one thread, which takes no time; else as a new interpreter."""
        self.socket, theirs = socket.socketpair()
        with theirs:
            if threading.active_count() == 1:
                self.pid = self._fork(theirs)
            else:
                command = [sys.executable, "-P", "-m", "worker.supervised", str(theirs.fileno())]
                self.pid = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=self._environment()).pid

    def _fork(self, theirs: socket.socket) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        source.warm_up()
        # What is here now is shared by all that is forked from here on. Excluded: a collection that writes to every object,
        # and so copies all of it for each process.
        gc.collect()
        gc.freeze()
        if pid := os.fork():
            return pid
        code = 1
        try:
            self.socket.close()
            Supervisor(self._settings, theirs).run()
            code = 0
        finally:
            logging.shutdown()
            os._exit(code)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CROSSHOST_HOST": self._settings.host}

    def say(self, what: str, **more: Any) -> None:
        """Send it a line; if it is gone, that is noticed where its lines are read."""
        with suppress(OSError):
            self.socket.sendall(json.dumps({"do": what, **more}).encode() + b"\n")

    def reap(self) -> None:
        """Make sure that it has ended."""
        self.socket.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@dataclass
class Taken:
    """A process that this host was asked to start.

    Attributes:
        id: The message's.
        run: Its run.
        process: Its id in the run.
        accepted: Celery's callback for "it runs".
        done: Celery's callback for "it has ended".
        failed: Celery's callback for "it could not be run".
        pid: Its id on this host, 0 until it runs.
        parent: The mailbox of its parent, empty until then.
        begun: When it was taken, by ``time.monotonic()``.
    """

    id: str
    run: str
    process: str
    accepted: Callable[..., None]
    done: Callable[..., None]
    failed: Callable[..., None]
    pid: int = 0
    parent: str = ""
    begun: float = 0.0

    def terminate(self, _signum: Any = None) -> None:
        """Asked for by Celery when a request is revoked; a process is ended by its parent, and by nobody else."""


class Processes(_BasePool):  # type: ignore[misc]
    """The pool; ``app.supervision`` is the supervisor, ``app.placement`` hears how many processes run here."""

    signal_safe = False
    task_join_will_block = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._supervision: Supervision = self.app.supervision
        self._taken: dict[int, Taken] = {}
        self._numbers = itertools.count(1)
        self._received = b""
        self._hub: Any = None
        self._stopping = False
        self.app.placement.running = lambda: len(self._taken)

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the worker's loop read what the supervisor says; at every connection to the broker anew."""
        self._hub = hub
        hub.add_reader(self._supervision.socket, self._receive)

    def on_apply(self, _target: Any, args: Any = (), _kwargs: Any = None, **callbacks: Any) -> Taken:
        """Pass a start on to the supervisor."""
        _task, message_id, request, body, content_type, content_encoding = args
        taken = Taken(
            message_id, "", "", callbacks["accept_callback"], callbacks["callback"], callbacks["error_callback"]
        )
        taken.begun = time.monotonic()
        try:
            (run, process, *again), _, _ = loads(body, content_type, content_encoding, accept={"application/json"})
            if not (_ID.fullmatch(run) and _ID.fullmatch(process)):
                raise ValueError("a run or a process that no program names so")
            taken.run, taken.process = run, process
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message, it costs itself alone
            self.app.not_started(taken, f"{type(exc).__name__}: {exc}")
            taken.failed(ExceptionInfo())
            return taken
        number = next(self._numbers)
        self._taken[number] = taken
        redelivered = bool((request.get("delivery_info") or {}).get("redelivered")) or True in again
        start = {"number": number, "run": taken.run, "process": taken.process, "redelivered": redelivered}
        self._supervision.say("start", process=start)
        self.app.placement.changed()
        return taken

    def _receive(self) -> None:
        try:
            data = self._supervision.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._hear(**json.loads(line))

    def _hear(self, number: int, event: str, **more: Any) -> None:
        taken = self._taken[number]
        if event == "started":
            taken.pid, taken.parent = more["pid"], more["parent"]
            taken.accepted(taken.pid, taken.begun)
            return
        del self._taken[number]
        self._settle(taken, event, more.get("reason", ""), more.get("exitcode"))
        self.app.placement.changed()

    def _settle(self, taken: Taken, event: str, reason: str, exitcode: int | None) -> None:
        if event in ("refused", "failed", "lost"):
            kind: type[Exception] = {"refused": Refused, "lost": WorkerLostError}.get(event, LabError)
            try:
                raise kind(reason)
            except Exception as exc:  # noqa: BLE001 - Celery asks for it as it is where one is caught
                if event != "lost":  # then another host has it
                    with suppress(LabError, OSError):  # it is in the log
                        self.app.not_started(taken, reason)
                log.error("process %s of run %s: %s", taken.process, taken.run, exc)
                taken.failed(ExceptionInfo())
        else:
            taken.done((0, exitcode, time.monotonic() - taken.begun))

    def _lost(self) -> None:
        """The supervisor was killed, and its processes with it: say so to their parents, and go on with another."""
        log.error("the supervisor of this host has ended; its %d processes with it", len(self._taken))
        self._hub.remove_reader(self._supervision.socket)
        self._supervision.reap()
        lost, self._taken = self._taken, {}
        self._received = b""
        untold = self._kill(lost)
        for taken in lost.values():
            self._settle(taken, "ended" if taken.parent else "lost", "its supervisor was killed", None)
        if not self._stopping:
            self._supervision.start()
            self.register_with_event_loop(self._hub)
            for taken in untold:  # Redis is away: the supervisor is more patient than this loop
                self._supervision.say("bury", process=[taken.run, taken.process, taken.parent])
        self.app.placement.changed()

    def _kill(self, lost: dict[int, Taken]) -> list[Taken]:
        """Make sure that the processes have ended, and tell their parents; those who could not be told."""
        settings, store, untold = self.app.settings, Store(self.app.settings.broker_url), []
        for taken in lost.values():
            if taken.pid and sys.platform != "linux":  # there the kernel has done it
                with suppress(ProcessLookupError):
                    os.kill(taken.pid, signal.SIGKILL)
            run = Run(settings, store, taken.run, taken.process)
            try:
                taken.parent = taken.parent or claimed_here(run)
                if not taken.parent:
                    continue
                run.bury(taken.process, taken.parent, -signal.SIGKILL, host_lost=True)
            except (LabError, OSError):
                if taken.parent:  # else nobody knows yet whether it was claimed; then its lease lapses
                    untold.append(taken)
        return untold

    def on_stop(self) -> None:
        """Have the supervisor end all processes, and then itself."""
        self._stopping = True
        self._supervision.say("stop")
        with suppress(OSError):
            self._supervision.socket.settimeout(STOP_TIMEOUT)
            while self._supervision.socket.recv(1 << 16):
                pass
        self._supervision.reap()

    on_terminate = on_stop

    def terminate_job(self, pid: int, signum: Any = None) -> None:
        """End a process, as its host stops."""
        self._supervision.say("kill", pid=pid)

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "processes": [taken.pid for taken in self._taken.values() if taken.pid]}
