"""What runs in the child that a forker forks: verify, become the process that was sent, run it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import process, reduction, spawn
from typing import Any

from lab.cluster import environ
from lab.cluster.context import default_context
from lab.cluster.process import authkey_of, unpack_head
from lab.cluster.share import HOST
from lab.errors import CannotLoad, LabError
from lab.fleet.counts import COUNTER
from lab.fleet.engine import DEAD_KEY, PROCESS_QUEUE, PROCESS_TASK
from lab.mainmodule import Unguarded
from lab.program import limits, locked, namesakes
from lab.program.shipped import Program
from lab.program.source import Own, from_program
from lab.store import ledger
from lab.store import run as runs
from lab.store.run import MAIL, Run
from onloan import deadletters
from worker import copies, dump
from worker.lifeline import end_with_parent

_MAIN = process.current_process()
LEFT_IGNORED = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
"""As Python begins."""


class Child:
    """The object that ``multiprocessing.popen_fork.Popen`` forks for: it calls ``_bootstrap`` in the child.

    Args:
        run: The run that the process belongs to, as this process.
        descriptors: Of files with the packed process (``lab.cluster.process.pack``) and the source of its program (empty if
            it comes without), opened; what to use as standard output and as standard error; an end of a
            pipe, the sentinel of ``parent_process()``: the supervisor closes the other when the parent has ended, wherever
            that was; the end of a pipe for the stacks of its threads; an end of the socket for what the processes of this
            host share; a file to count in (``lab.fleet.counts``); and its ledger (``lab.store.ledger``).
        forsake: Closes what the forker has open.
    """

    def __init__(self, run: Run, descriptors: list[int], forsake: Callable[[], None]) -> None:
        self._run, self._forsake = run, forsake
        self._payload_file, self._archive_file, self._stdout, self._stderr, *others = descriptors
        self._parent, self._dump, self._share, self._counts, self._ledger = others
        self._forker = os.getpid()
        self._mailbox = ""

    def _bootstrap(self, parent_sentinel: int) -> int:
        parent_sentinel = self._parent  # the one that was given tells of the forker's end
        end_with_parent(self._forker)  # nobody goes on unsupervised
        # Excluded: a program that signals its process group, and ends the host and whoever else is there.
        os.setpgid(0, 0)
        self._forsake()
        self._take_over_streams()
        reset_signals()
        dump.enable(self._dump)
        HOST.join(self._share)
        COUNTER.join(self._counts)
        ledger.OWN.join(self._ledger)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        restore_tmpdir()
        environ.begin()
        self._payload, self._archive = memoryview(contents(self._payload_file)), contents(self._archive_file)
        limits.impose(self._run.settings)  # from here on, what goes beyond them can be told
        try:
            process_obj = self._load()
        except LabError as exc:
            if not isinstance(exc, Unguarded):  # which the parent tells, once for all that it has started
                sys.stderr.write(f"{exc}\n")
            self._report(exc)
            return 1
        except BaseException as exc:  # noqa: BLE001 - whatever unpickling runs: it costs this process and nobody else
            limits.mark(exc)
            sys.stderr.write(f"Process on host {self._run.settings.host} could not be loaded:\n")
            traceback.print_exception(exc.with_traceback(from_program(exc.__traceback__)))
            self._report(exc)
            return 1
        if self._run.settings.process_memory or self._run.settings.process_files:
            process_obj.run = limits.marking(process_obj.run)
        return int(process_obj._bootstrap(parent_sentinel))

    def _load(self) -> Any:
        head, pickled = unpack_head(self._payload)
        self._mailbox = head.get("mailbox", "")
        runs.enter(self._run)
        if (theirs := tuple(head["python"])) != sys.version_info[:2]:
            raise LabError(
                "The program runs on Python {}.{}, this host on {}.{}.".format(*theirs, *sys.version_info[:2]),
                "Pickled functions need the same version on both sides.",
            )
        main: Any = _MAIN
        process._current_process = main  # type: ignore[attr-defined]  # in the worker it is Celery's
        sys.modules["__main__"] = types.ModuleType("__main__")  # not the worker's
        main._inheriting = True  # so that a main module without a guard gets spawn's error, not a chain of processes
        main.authkey = authkey_of(head)
        environ.adopt(head.get("environ", {}))
        try:
            self._prepare(head)
            process_obj = reduction.ForkingPickler.loads(pickled)
        finally:
            del main._inheriting
        process_obj.authkey = main.authkey
        return process_obj

    def _prepare(self, head: dict[str, Any]) -> None:
        """Become like the parent: its paths, its arguments, its main module."""
        if not self._archive:
            spawn.prepare(_usable_here(head["prepare"], lambda _: False))
            return
        program = Program.unpack(self._archive)
        own = program.install(head["program"], default_context())
        make_way_for(own)
        prepare = _usable_here(head["prepare"], own.has)
        if program.packages:
            prepare["sys_path"] = locked.enter(self._run.settings.packages, program.packages, prepare["sys_path"])
        assert copies.HERE is not None
        if begins := copies.HERE.bring(program, head["program"], head["prepare"].get("dir", "")):
            prepare["dir"] = begins
        if program.main:
            prepare.pop("init_main_from_path", None)
        spawn.prepare(prepare)
        if program.main and head["runs_main"]:
            own.run_as_main(program.main, "__mp_main__")

    def _report(self, exc: BaseException) -> None:
        """Tell the parent why, before its host tells it that this process has ended; and leave a dead letter."""
        error = " ".join(traceback.format_exception_only(exc)[-1].partition("\n\n")[0].split())
        lacks = exc.name if isinstance(exc, ModuleNotFoundError) else None
        if lacks:
            sys.stderr.write(f"{CannotLoad.on(self._run.settings.host, error, lacks)}\n")
        sys.stderr.flush()
        event: dict[str, Any] = {
            "event": "unloadable",
            "process": self._run.me,
            "host": self._run.settings.host,
            "error": error,
        }
        with suppress(LabError):
            said = deadletters.letter(error, PROCESS_QUEUE, PROCESS_TASK, self._run.me, 1)
            deadletters.add(self._run.store.call, DEAD_KEY, said)
            if isinstance(exc, Unguarded):
                event["unguarded"] = [exc.message, exc.hint]
            if self._mailbox:  # else it was not read so far as to know whom to tell
                self._run.eval(MAIL, [self._mailbox], self._run.letter(self._mailbox, **event, lacks=lacks))

    def _take_over_streams(self) -> None:
        for fd, standard in ((self._stdout, 1), (self._stderr, 2)):
            os.dup2(fd, standard)
            os.close(fd)
        # line buffering only where a person would see it: the terminal is the parent's, so what is printed shows at once
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def reset_signals() -> None:
    """Heed signals as Python does when it begins."""
    for signum in signal.valid_signals() - LEFT_IGNORED - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):  # some that the C library keeps for itself
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def contents(fd: int) -> bytes:
    """All bytes of a file; without moving its offset, which others share who read the same file."""
    size, parts, at = os.fstat(fd).st_size, [], 0
    while at < size and (part := os.pread(fd, size - at, at)):
        parts.append(part)
        at += len(part)
    os.close(fd)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _usable_here(prepare: dict[str, Any], sent: Callable[[str], bool]) -> dict[str, Any]:
    """The parent's paths, as far as this host has them, or they were sent."""
    data = dict(prepare)
    theirs = [path for path in data.pop("sys_path") if os.path.exists(path) or sent(path)]
    data["sys_path"] = theirs + [path for path in sys.path if path not in theirs]
    if not os.path.isdir(data.get("dir", "")):
        data.pop("dir", None)
    if not os.path.isfile(data.get("init_main_from_path", "")):
        data.pop("init_main_from_path", None)  # then only what lies in modules can be run here
    return data


def make_way_for(own: Own) -> None:
    """Let the program have modules of its own by the names of ours; nothing here needs the worker's."""
    namesakes.make_way(own)
    if own.has_module("worker"):
        namesakes.forget("worker")


def restore_tmpdir() -> None:
    """Let the program have the directory for temporary files that this machine has, not the host's own."""
    ours = os.environ.pop("CROSSHOST_TMPDIR", None)
    if ours is not None:
        os.environ.pop("TMPDIR", None)
        os.environ |= {"TMPDIR": ours} if ours else {}
        tempfile.tempdir = None  # forget the directory that the worker looked up
