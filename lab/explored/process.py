"""Process: a worker of the scheduler with the interface of a process.

Differs from multiprocessing: globals are those of all processes; a terminated process ends before its next operation.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import process as standard
from typing import Any

from lab.explored.clock import pid_of
from lab.explored.connection import Connection, Sentinel
from lab.explored.operation import Operation
from lab.explored.scheduler import Worker, active, current, worker_or_none
from lab.explored.shared import Handle, Packed, Primitive, Shared


class _Life(Shared):
    """Whether a process has ended, as an object that operations touch."""

    kind = "Process"

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.key)
        self.worker = worker

    def state(self) -> Any:
        """Whether it has ended."""
        return self.worker.ended

    def show(self) -> str:
        """Whether it has ended."""
        return "ended" if self.worker.ended else "running"


class Process(Primitive):
    """A process of the program."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        if group is not None:
            raise AssertionError("group argument must be None for now")
        me = current()
        self._worker = active().spawn(self._body, me.daemon if daemon is None else daemon)
        self._worker.process = self
        self._life = _Life(self._worker)
        self._name = name or self._worker.key
        self._target, self._args, self._kwargs = target, tuple(args), dict(kwargs or {})
        self._parent, self._started, self._closed, self._joined = me, False, False, False
        self._given: Any = None
        self._child: Process = self

    def run(self) -> None:
        """What the process does; the target, unless a subclass has something else to do."""
        if self._target:
            args, kwargs = self._given
            self._target(*args, **kwargs)

    def _body(self) -> int:
        self._child.run()
        return 0

    def _as_child(self) -> Process:
        """This object as the child knows it: a copy, with handles of its own."""
        child = copy.copy(self)
        child._given = _given(self._args, self._kwargs)
        own = {name: value.for_child() for name, value in vars(self).items() if isinstance(value, Handle)}
        vars(child).update(own)
        _hold((child._given, own), self._worker)
        return child

    def _check(self, parent: bool = False) -> None:
        if self._closed:
            raise ValueError("process object is closed")
        if parent and self._parent is not current():
            raise AssertionError(
                "can only join a child process" if self._started else "can only start a process object"
            )

    def start(self) -> None:
        """Start it."""
        self._check(parent=True)
        if self._started:
            raise AssertionError("cannot start a process twice")
        if current().daemon:
            raise AssertionError("daemonic processes are not allowed to have children")
        self._child = self._as_child()
        self._started = True
        active().launch(self._worker)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most ``timeout`` seconds."""
        self._check(parent=True)
        if not self._started:
            raise AssertionError("can only join a started process")
        worker = self._worker

        def act() -> None:
            self._joined = True
            current().clock = max(current().clock, worker.clock)

        active().perform(
            Operation(
                "join", act, ready=lambda: worker.ended, timeout=timeout, local=True, waits_for=lambda: worker.key
            ),
            child=worker.key,
        )

    def is_alive(self) -> bool:
        """Whether it runs."""
        self._check()
        return self._started and not self._has_ended("is_alive")

    def _has_ended(self, kind: str) -> bool:
        if self._joined:
            return True
        if current() is self._worker:
            return False
        # From now on, in a run from the beginning, the end of a process is a choice like any other operation.
        active().saw_ends = True
        return bool(self._life._do(kind, lambda: self._worker.ended, writes=False, note=lambda ended: str(ended)))

    @property
    def exitcode(self) -> int | None:
        """Its exit code; None as long as it has none."""
        self._check()
        return self._worker.code if self._started and self._has_ended("exitcode") else None

    def terminate(self) -> None:
        """End it before its next operation."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it before its next operation."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        self._check()
        scheduler = active()

        def act() -> None:
            scheduler.kill(self._worker, -number)

        op = Operation("terminate", act, (self._life.touch(True),), victim=self._worker.key)
        scheduler.perform(op)

    def close(self) -> None:
        """Let go of it.

        Raises:
            ValueError: It still runs.
        """
        if self._started and not self._has_ended("exitcode"):
            raise ValueError(
                "Cannot close a process while it is still running. You should first call join() or terminate()."
            )
        self._closed = True

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def daemon(self) -> bool:
        """Whether it ends with its parent."""
        return self._worker.daemon

    @daemon.setter
    def daemon(self, daemon: bool) -> None:
        if self._started:
            raise AssertionError("process has already started")
        self._worker.daemon = daemon

    @property
    def pid(self) -> int | None:
        """Its id, the same in every run; None before it is started."""
        return pid_of(self._worker.path) if self._started else None

    ident = pid

    @property
    def sentinel(self) -> Sentinel:
        """For ``connection.wait``."""
        if not self._started:
            raise ValueError("process not started")
        return Sentinel(self._worker, self._life)

    def __repr__(self) -> str:
        return f"<Process name={self._name!r} parent={pid_of(self._parent.path)}>"


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A process's arguments, as it gets them: copies. What does not pickle, as under fork, it gets as it is."""
    try:
        return Packed((args, kwargs), to_child=True).open()
    except Exception:  # noqa: BLE001 - pickling raises whatever it likes
        own = tuple(arg.for_child() if isinstance(arg, Handle) else arg for arg in args)
        return own, {name: arg.for_child() if isinstance(arg, Handle) else arg for name, arg in kwargs.items()}


def _hold(value: Any, worker: Worker) -> None:
    """Close the ends of pipes among a process's arguments when it ends."""
    if isinstance(value, Connection):
        value.held_by(worker)
    elif isinstance(value, dict):
        for item in value.values():
            _hold(item, worker)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _hold(item, worker)


class _Main:
    """The program itself, as its ``current_process``."""

    name, daemon, pid, ident, exitcode, authkey = "MainProcess", False, 1000, 1000, None, b""

    def is_alive(self) -> bool:
        """It asks, so it is."""
        return True


MAIN = _Main()


def current_process() -> Any:
    """The process that asks."""
    worker = worker_or_none()
    if worker is None:
        return standard.current_process()
    return worker.process or MAIN


def parent_process() -> Any:
    """The process that made the one that asks; None in the main process."""
    me = current()
    return None if me.process is None else me.process._parent.process or MAIN


def active_children() -> list[Any]:
    """The children of the process that asks that are alive."""
    me, scheduler = current(), active()
    mine = [worker.process for worker in scheduler.workers.values() if worker.path[:-1] == me.path and worker.path]
    return [process for process in mine if process.is_alive()]
