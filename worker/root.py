"""What runs in the interpreter of a detached program's root: its source as it was sent, in a process of its own.

``worker.jobs.program`` starts ``python -P -m worker.root COPIES PARENT ASKED ARCHIVE OUTCOME``: a folder for data that came
along, a process id, and descriptors of three files in memory. To the program this process is what ``producer run`` makes of
its own: the main module is ``__main__``, and ``import multiprocessing`` means the fleet's.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import operator
import os
import signal
import sys
import traceback
from multiprocessing import process
from types import TracebackType
from typing import Any, NoReturn

from lab import mainmodule
from lab.cluster import environ
from lab.cluster.context import ClusterContext, default_context
from lab.errors import ExitCode, LabError
from lab.jobs.programs import RESULT, Asked
from lab.program import limits, locked, shipped, source
from lab.program.shipped import Program
from lab.program.standin import StandIn
from lab.settings import Settings
from worker import copies
from worker.child import contents, make_way_for, reset_signals, restore_tmpdir
from worker.lifeline import end_with_parent

OWN_CODES = 100
"""What is added to an exit code of ours, as ``producer run`` does: so that the program's is not taken for it."""


class NoResult(LabError):
    """What a function has returned cannot be kept."""


def main(folder: str, parent: int, asked: int, archive: int, outcome: int) -> None:
    """Run the program; returns when it has ended as it wanted to."""
    end_with_parent(parent)
    _become_ordinary()
    try:
        what, packed = Asked(**json.loads(contents(asked))), contents(archive)
        limits.impose(Settings.from_env())
        own = _enter(what, packed, folder)
        _tell_failure(outcome)
        result = _call(what, own) if what.function else _run(what, own)
        if result:
            _write(outcome, {"result": result})
        if mainmodule.told:
            sys.exit(OWN_CODES + ExitCode.CANNOT_LOAD)
    except LabError as exc:
        _leave(exc, outcome)


def _become_ordinary() -> None:
    """Be a process as a shell starts one, and not a slot's."""
    reset_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    restore_tmpdir()
    environ.begin()
    # a line at a time, as somebody may be watching
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        assert stream is not None
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors=errors)  # type: ignore[union-attr]


def _enter(what: Asked, packed: bytes, folder: str) -> source.Own:
    program = Program.unpack(packed)
    if what.python != list(sys.version_info[:2]):
        raise LabError(
            "The program was submitted by Python {}.{}, this host has {}.{}.".format(
                *what.python, *sys.version_info[:2]
            ),
            "Functions and modules may need the same version on both sides.",
        )
    begins = copies.Copies(folder).bring(program, hashlib.sha256(packed).hexdigest(), what.folder) or what.folder
    if os.path.isdir(begins):
        os.chdir(begins)
    process.ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
    own = program.importable(StandIn("cluster", _fleet))
    own.install()
    make_way_for(own)
    shipped.adopt(program)
    if program.packages:
        sys.path[:] = locked.enter(Settings.from_env().packages, program.packages, sys.path)
    sys.argv[:] = what.argv
    sys.path.insert(0, program.root)
    return own


def _fleet() -> ClusterContext:
    """The fleet, when the program asks for it; one that does not, needs none of its slots."""
    ctx = default_context()
    ctx.connect()
    return ctx


def _run(what: Asked, own: source.Own) -> str:
    if what.module:
        own.run_module_as_main(what.module)
    else:
        own.run_as_main(what.path, "__main__")
    return ""


def _call(what: Asked, own: source.Own) -> str:
    """What the function returns, as JSON."""
    if what.module:
        module = sys.modules["__main__"] = importlib.import_module(what.module)  # what its children import as well
    else:
        module = own.run_as_main(what.path, "__mp_main__")  # as a child does: what is under its main guard is not run
    function = operator.attrgetter(what.function)(module)
    value = function() if what.input is None else function(json.loads(what.input))
    try:
        result = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise NoResult(
            f"{what.typed} returned what JSON cannot say: {exc}.",
            "Return numbers, text, lists and dicts of them; what is more, write to where you will find it.",
        ) from exc
    if len(result) > RESULT:
        raise NoResult(
            f"{what.typed} returned {len(result)} bytes of JSON, and at most {RESULT} are kept.",
            "Write it to where you will find it, and return where that is.",
        )
    return result


def _tell_failure(outcome: int) -> None:
    """Have an uncaught exception shown as Python does, and kept."""

    def show(kind: type[BaseException], exc: BaseException, tb: TracebackType | None) -> None:
        tb = source.without_machinery(source.from_program(tb))
        error = traceback.format_exception_only(kind, exc)[-1].strip()
        _write(outcome, {"error": error, "traceback": "".join(traceback.format_exception(kind, exc, tb))})
        sys.__excepthook__(kind, exc.with_traceback(tb), tb)

    sys.excepthook = show


def _leave(exc: LabError, outcome: int) -> NoReturn:
    """Say what happened to the fleet, or to the result."""
    sys.stdout.flush()
    sys.stderr.write(f"error: {exc}\n")
    _write(outcome, {"error": f"{type(exc).__name__}: {exc.message}", "traceback": str(exc)})
    sys.exit(OWN_CODES + exc.exit_code)


def _write(outcome: int, said: dict[str, Any]) -> None:
    left = memoryview(json.dumps(said).encode())
    os.ftruncate(outcome, 0)
    os.lseek(outcome, 0, os.SEEK_SET)
    while left:
        left = left[os.write(outcome, left) :]


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
