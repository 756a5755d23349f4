"""The forker of a host: a process that forks and reaps, and does nothing else.

A forked process shares its memory with its parent until one of the two writes to it. A supervisor writes all the time (its
own counters of references, if nothing else), so each process forked from it would keep a copy of its own of whatever the
supervisor has touched since. So the processes are forked from one that sleeps: forked itself as soon as everything is
imported, with one thread, its objects frozen (``gc.freeze``), woken for a moment by each start and each end.

It is a child of the supervisor, and its children die with it, as it does with the supervisor (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import popen_fork
from typing import Any

from lab.program.shipped import Program
from lab.settings import Settings
from lab.store.run import Run
from lab.store.store import Store
from worker.child import Child
from worker.lifeline import end_with_parent

KEPT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
IGNORED = signal.valid_signals() - KEPT - {signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
"""Who stops a host tells its worker, which tells the supervisor; a terminal's Ctrl-C reaches everybody at once. And a process
that signals ``os.getppid()`` means its own program, not this process, with which those of all programs would end."""


def settle_in() -> None:
    """Make this process one that ends with its parent, and by nothing that is said to all at once."""
    end_with_parent()
    for signum in IGNORED:
        with suppress(OSError):  # some that the C library keeps for itself
            signal.signal(signum, signal.SIG_IGN)


class Forker:
    """The forker, as the supervisor sees it.

    Args:
        settings: The host's settings.
        forsake: Closes, in the forker, what the supervisor has open.

    Attributes:
        socket: Readable when a process has ended, was stopped or goes on.
    """

    def __init__(self, settings: Settings, forsake: Callable[[], None]) -> None:
        self.socket, theirs = socket.socketpair()
        self._received = b""
        self._changes: list[tuple[int, int]] = []
        with theirs:
            self._pid = os.fork()
            if not self._pid:
                try:
                    self.socket.close()
                    forsake()
                    _Nursery(settings, theirs).run()
                finally:
                    logging.shutdown()
                    os._exit(0)

    def fork(self, run: Run, descriptors: list[int]) -> int:
        """Start a process that was claimed; its id on this host.

        Args:
            run: The run that it belongs to, as this process.
            descriptors: Of its payload, its program's archive if it has one, what it uses as standard output and as standard
                error, the sentinel of its parent, what it writes its stacks to, its end of the socket for what the
                processes of this host share, the file that it counts in, and its ledger.

        Raises:
            OSError: The forker is gone, or could not fork.
        """
        ask = json.dumps({"run": run.id, "process": run.me, "now": run.server_ms()}).encode() + b"\n"
        socket.send_fds(self.socket, [ask], descriptors)
        while True:
            for said in self._read():
                if "pid" in said:
                    if not said["pid"]:
                        raise OSError(said["why"])
                    return int(said["pid"])

    def changes(self) -> list[tuple[int, int]]:
        """The processes that have ended, were stopped or go on: each id, with what ``os.waitpid`` says of it.

        Raises:
            OSError: The forker is gone, and its processes with it.
        """
        if not self._changes:
            self._read()
        changes, self._changes = self._changes, []
        return changes

    @property
    def pending(self) -> bool:
        """Whether there are changes that were read already."""
        return bool(self._changes)

    def _read(self) -> list[dict[str, Any]]:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the forker is gone")
        *lines, self._received = (self._received + data).split(b"\n")
        said = [json.loads(line) for line in lines]
        self._changes += [(each["changed"], each["status"]) for each in said if "changed" in each]
        return said

    def signal(self, pid: int, signum: int) -> None:
        """Send a process a signal.

        Excluded, as the forker does it: hitting another that was given the number of one that has ended.
        """
        with suppress(OSError):  # the forker is gone, and the process with it
            self.socket.sendall(json.dumps({"signal": signum, "pid": pid}).encode() + b"\n")

    def close(self) -> None:
        """Have it end, with whatever still runs, and wait for that."""
        self.socket.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


class _Nursery:
    """The forker itself."""

    def __init__(self, settings: Settings, supervisor: socket.socket) -> None:
        self._settings, self._supervisor = settings, supervisor
        self._store = Store(settings.broker_url, settings.outage)  # never used here: each child has one of its own
        self._popens: dict[int, Any] = {}
        self._descriptors: list[int] = []
        self._received = b""

    def run(self) -> None:
        """Fork and reap until the supervisor is gone."""
        settle_in()
        self._rehearse()
        self._wakes, self._wake = socket.socketpair()  # readable when a child has changed
        for end in (self._wakes, self._wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # for the sake of the socket, which is written to at each
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._supervisor, self._wakes], [], [])
            if self._wakes in ready:
                self._reap()
            if self._supervisor in ready and not self._receive():
                break
        for pid in self._popens:
            os.kill(pid, signal.SIGKILL)  # where the kernel does not do it

    def _rehearse(self) -> None:
        """Do once what each child would do at its start: then what that takes lies in the memory that all of them share."""
        _forget_celery_logging()
        Program.unpack(Program("/", "", False, {}).pack())
        self._store.link().rehearse()
        gc.collect()
        gc.freeze()

    def _receive(self) -> bool:
        # One request's descriptors come with its bytes; the supervisor waits for the answer before it asks again.
        data, descriptors, _, _ = socket.recv_fds(self._supervisor, 1 << 16, 16)
        if not data:
            return False
        self._descriptors += descriptors
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "signal" in said:
                if said["pid"] in self._popens:
                    os.kill(said["pid"], said["signal"])
            else:
                self._fork(said["run"], said["process"], said["now"])
        return True

    def _fork(self, run_id: str, process_id: str, now: int) -> None:
        descriptors, self._descriptors = self._descriptors, []
        run = Run(self._settings, self._store, run_id, process_id)
        run.set_clock(now)  # its own children are dated by it
        child = Child(run, descriptors, self._forsake)
        # Excluded: a signal that reaches the child while it still has this process's handlers, and is lost in them. The
        # child unblocks when it has handlers of its own.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            popen = popen_fork.Popen(child)  # type: ignore[arg-type]
        except OSError as exc:
            self._say(pid=0, why=f"this host could not fork: {exc}")
        else:
            self._popens[popen.pid] = popen
            self._say(pid=popen.pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for fd in descriptors:
                os.close(fd)

    def _forsake(self) -> None:
        signal.set_wakeup_fd(-1)
        for end in (self._supervisor, self._wakes, self._wake):
            end.close()
        for other in self._popens.values():
            other.close()

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            while self._wakes.recv(1 << 10):
                pass
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
                if not pid:
                    return
                if not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status)) and (popen := self._popens.pop(pid, None)):
                    popen.returncode = os.waitstatus_to_exitcode(status)
                    popen.close()
                self._say(changed=pid, status=status)

    def _say(self, **said: Any) -> None:
        with suppress(OSError):  # the supervisor is gone; so are we, at the next look
            self._supervisor.sendall(json.dumps(said).encode() + b"\n")


def _forget_celery_logging() -> None:
    # the program's own logging starts from the interpreter's defaults, as in a spawned child
    ours = logging.getLogger("crosshost")
    ours.handlers, ours.propagate = [], True
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.WARNING)
