"""What runs in the child that a slot forks: verify, become the process that was sent, run it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import traceback
import types
from contextlib import suppress
from multiprocessing import process, reduction, spawn
from typing import Any

from celery import platforms

from lab.cluster import deadletters
from lab.cluster import run as runs
from lab.cluster.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK
from lab.cluster.process import revealed_authkey, unpack_head
from lab.cluster.run import Run
from lab.errors import LabError

_MAIN = process.current_process()
RESET_SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM")


class Child:
    """The object that ``multiprocessing.popen_fork.Popen`` forks for: it calls ``_bootstrap`` in the child.

    Args:
        run: The run that the process belongs to, as this process.
        payload: The packed process (``lab.cluster.process.pack``), signature verified.
        stdout: Descriptor to use as standard output; the supervisor reads its other end.
        stderr: Likewise, standard error.
        parent: Both ends of a pipe; the first is the sentinel of ``parent_process()``, and the supervisor closes the second
            when the parent has ended, wherever that was.
    """

    def __init__(self, run: Run, payload: memoryview, stdout: int, stderr: int, parent: tuple[int, int]) -> None:
        self._run, self._payload, self._stdout, self._stderr = run, payload, stdout, stderr
        self._parent = parent

    def _bootstrap(self, parent_sentinel: int) -> int:
        parent_sentinel, write_end = self._parent  # the one that was given tells of the slot's end
        os.close(write_end)
        platforms.set_pdeathsig("SIGKILL")  # type: ignore[attr-defined]  # a child whose slot is killed must not go on unsupervised
        self._take_over_streams()
        for name in RESET_SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _forget_celery_logging()
        _restore_tmpdir()
        try:
            process_obj = self._load()
        except LabError as exc:
            sys.stderr.write(f"{exc}\n")
            sys.stderr.flush()
            return 1
        except BaseException:  # noqa: BLE001 - whatever unpickling runs: it costs this process and nobody else
            sys.stderr.write(f"Process on host {self._run.settings.host} could not be loaded:\n")
            traceback.print_exc()
            sys.stderr.flush()
            self._report(traceback.format_exc(limit=0).strip())
            return 1
        return int(process_obj._bootstrap(parent_sentinel))

    def _report(self, reason: str) -> None:
        said = deadletters.letter(reason, PROCESS_QUEUE, PROCESS_TASK, self._run.me, 1)
        with suppress(LabError, OSError):  # its parent learns of it in any case
            deadletters.add(self._run.store.call, DEAD_KEY, said)

    def _load(self) -> Any:
        head, pickled = unpack_head(self._payload)
        runs.enter(self._run)
        if (theirs := tuple(head["python"])) != sys.version_info[:2]:
            raise LabError(
                "The program runs on Python {}.{}, this host on {}.{}.".format(*theirs, *sys.version_info[:2]),
                "Pickled functions need the same version on both sides.",
            )
        main: Any = _MAIN
        process._current_process = main  # type: ignore[attr-defined]  # in the slot it is billiard's
        sys.modules["__main__"] = types.ModuleType("__main__")  # not the worker's
        main._inheriting = True  # so that a main module without a guard gets spawn's error, not a chain of processes
        main.authkey = revealed_authkey(self._run, head)
        try:
            spawn.prepare(_usable_here(head["prepare"]))
            process_obj = reduction.ForkingPickler.loads(pickled)
        finally:
            del main._inheriting
        process_obj.authkey = main.authkey
        return process_obj

    def _take_over_streams(self) -> None:
        for fd, standard in ((self._stdout, 1), (self._stderr, 2)):
            os.dup2(fd, standard)
            os.close(fd)
        # line buffering only where a person would see it: the terminal is the parent's, so what is printed shows at once
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _usable_here(prepare: dict[str, Any]) -> dict[str, Any]:
    """The parent's paths, as far as this host has them."""
    data = dict(prepare)
    theirs = [path for path in data.pop("sys_path") if os.path.exists(path)]
    data["sys_path"] = theirs + [path for path in sys.path if path not in theirs]
    if not os.path.isdir(data.get("dir", "")):
        data.pop("dir", None)
    if not os.path.isfile(data.get("init_main_from_path", "")):
        data.pop("init_main_from_path", None)  # then only what lies in modules can be run here
    return data


def _restore_tmpdir() -> None:
    ours = os.environ.pop("CROSSHOST_TMPDIR", None)
    if ours is not None:
        os.environ.pop("TMPDIR", None)
        os.environ |= {"TMPDIR": ours} if ours else {}
        tempfile.tempdir = None  # forget the directory that the worker looked up


def _forget_celery_logging() -> None:
    # the program's own logging starts from the interpreter's defaults, as in a spawned child
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.WARNING)
