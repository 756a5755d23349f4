"""The engine of a Process, where other contexts have a ``Popen``: an interpreter, and a thread that runs it."""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing import context, popen_spawn_posix, reduction, resource_tracker, spawn, util
from typing import Any

from lab.interpreters import child
from lab.interpreters.api import in_main, interpreters

PATIENCE = 5.0
"""Seconds that a program waits at its end for children that are daemons, which other places would end there."""

_util: Any = util
_tracker: Any = resource_tracker
_running: set[Popen] = set()


class Popen(popen_spawn_posix.Popen):
    """One child: the stdlib's pickle of a spawned process, read by an interpreter in place of one.

    Whatever a process inherits by its descriptor (ends of pipes, shared memory), an interpreter finds in the same table; it
    gets a second descriptor, so that each side closes its own.
    """

    method = "interpreters"
    _fds: list[int]

    def duplicate_for_child(self, fd: int) -> int:
        """A second descriptor, which is the child's to close."""
        self._fds.append(os.dup(fd))
        return self._fds[-1]

    def _launch(self, process_obj: Any) -> None:
        self.pid, self.daemon = os.getpid(), process_obj.daemon
        pickled = io.BytesIO()
        with ExitStack() as undo:  # until there is somebody to whom it all belongs
            undo.callback(lambda: _util.close_fds(*self._fds))
            self._pickle(process_obj, pickled)
            interpreter = interpreters().create()
            undo.callback(interpreter.close)
            interpreter.exec(f"import sys; sys.path[:] = {[str(path) for path in sys.path]!r}")
            self.sentinel, self._ended = os.pipe()
            undo.callback(_util.close_fds, self.sentinel, self._ended)
            program, parents = os.pipe()
            undo.callback(_util.close_fds, program, parents)
            tracker = os.dup(_tracker.getfd())
            undo.callback(os.close, tracker)
            # Not a daemon where that is refused; there, as everywhere, a child is joined before its parent ends.
            args = interpreter, program, tracker, process_obj._name
            self._thread = threading.Thread(target=self._run, args=args, name=process_obj._name, daemon=in_main())
            self._register()
            undo.callback(_running.discard, self)
            self._thread.start()
            undo.pop_all()
        self.finalizer = util.Finalize(self, _util.close_fds, (self.sentinel, parents))
        try:
            # The child may have failed before it read.
            with suppress(BrokenPipeError), open(parents, "wb", closefd=False) as file:
                file.write(pickled.getbuffer())
        except BaseException:
            self.finalizer()  # the child meets the end of its pickle, and ends
            raise

    def _pickle(self, process_obj: Any, file: io.BytesIO) -> None:
        about: Any = spawn.get_preparation_data(process_obj._name)
        about.pop("dir", None)  # it is the process's, and may be another one by the time that the child begins
        context.set_spawning_popen(self)
        try:
            reduction.dump(about, file)
            reduction.dump(process_obj, file)
        finally:
            context.set_spawning_popen(None)

    def _register(self) -> None:
        if in_main() and not _running:
            atexit.unregister(_end)
            atexit.register(_end)  # before multiprocessing's own, which would wait for daemons without a bound
        _running.add(self)

    def _run(self, interpreter: Any, program: int, tracker: int, name: str) -> None:
        code = 1
        try:
            code = interpreter.call(child.main, program, tracker)
            interpreter.close()
        except Exception as exc:  # noqa: BLE001  # whatever ends a child is told on stderr and becomes an exit code
            print(f"Process {name}:\n{getattr(getattr(exc, 'excinfo', None), 'errdisplay', exc)}", file=sys.stderr)
            with suppress(Exception):  # it may be closed
                interpreter.close()
        finally:
            _util.close_fds(program, tracker)
            # The code is set before the sentinel speaks: who wakes up on the sentinel must not read None.
            self.returncode = code
            _running.discard(self)
            os.close(self._ended)

    def poll(self, flag: int = 0) -> int | None:
        """The exit code; None until there is one."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, waiting at most ``timeout`` seconds for it."""
        self._thread.join(timeout)
        return self.returncode

    def terminate(self) -> None:
        """Do nothing: multiprocessing asks it of daemons at a program's end, and nothing can end an interpreter that runs."""


def _end() -> None:
    """Wait for the children that are left; if a daemon does not end, end the process, as an interpreter cannot be ended."""
    try:
        # Pools and queues tell their children to end. Semaphores, which come at 0, keep their names: a child may just begin.
        _util._run_finalizers(1)
        deadline = time.monotonic() + PATIENCE
        for one in list(_running):
            one.wait(max(0.0, deadline - time.monotonic()) if one.daemon else None)
        names = [one._thread.name for one in list(_running)]
        if not names:
            return
        print(
            f"crosshost: {', '.join(names)}: still at work at the end of the program. An interpreter cannot be ended from"
            " outside, so the process ends with it. Ask such children to return, with an Event.",
            file=sys.stderr,
        )
        code = 1
    except KeyboardInterrupt:
        code = 130
    _util._run_finalizers()  # names of semaphores
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
