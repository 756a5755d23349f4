"""Running a script in a place, as ``python SCRIPT.py`` would run it.

The command replaces this process by a fresh interpreter (``exec``), which runs this module: so the script meets no trace
of the command line's own modules, signal handlers and threads. Its exit code is passed through. The producer's own ends
are told apart by ``errors.OWN_CODES``: 104 is "broker unreachable", 4 is what the script made of 4.
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing import context, get_context
from types import TracebackType
from typing import Any, NoReturn

import lab
from lab import source
from lab.errors import LabError
from lab.standin import StandIn
from producer import errors


def hand_over(script: str, place: str, args: list[str]) -> NoReturn:
    """Become the interpreter that runs a script in a place; does not return.

    Args:
        script: Path of the script.
        place: One of ``lab.PLACES``.
        args: What the script finds in ``sys.argv[1:]``.

    Raises:
        BadName: There is no such file, or it cannot be read.
    """
    _check_file(script)
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: what lies in the current directory is not to be taken for a part of this program
    os.execv(sys.executable, [sys.executable, "-P", "-m", "producer.script", place, script, *args])  # noqa: S606


def _check_file(script: str) -> None:
    from producer.names import BadName

    if os.path.isdir(script):
        raise BadName(
            f"{script!r} is a directory.", f"Name the script in it:\n  producer run {script.rstrip('/')}/NAME.py"
        )
    try:
        with open(script, "rb"):
            pass
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise BadName(
            f"Cannot read {script!r}: {reason}.", "Type the path of a Python file:\n  producer run SCRIPT.py"
        ) from exc


def main(place: str, script: str, *args: str) -> None:
    """Run a script in this process, which does nothing else."""
    path = os.path.abspath(script)
    root = os.path.dirname(os.path.realpath(script))
    try:
        own = _enter(place, root)
    except LabError as exc:
        _leave(exc)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.argv[:] = [script, *args]
    sys.path.insert(0, root)
    sys.excepthook = _show
    _forget_producer()
    try:
        own.run_as_main(path, "__main__")
    except LabError as exc:
        _leave(exc, root)
    except SyntaxError as exc:
        exc.filename = exc.filename or script  # Python does not name a file that is no text at all
        raise


def _enter(place: str, root: str) -> source.Own:
    """Make a place what the script's ``import multiprocessing`` means."""
    ctx = lab.get_context(place)
    if place == "processes":
        # the standard library's own, whose default start method is the place's until the script sets one
        default: Any = context._default_context
        default._default_context = get_context(ctx.get_start_method())
        return source.Own(root)
    if place == "cluster":
        ctx.connect()
    own = source.Own(root, stand_in=StandIn(ctx))
    own.install()
    return own


def _forget_producer() -> None:
    """Let the script have a module named ``producer`` of its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "producer"]:
        del sys.modules[name]


def _show(kind: type[BaseException], exc: BaseException, tb: TracebackType | None) -> None:
    """Show an uncaught exception as Python does."""
    tb = source.without_machinery(source.from_program(tb))
    sys.__excepthook__(kind, exc.with_traceback(tb), tb)


def _leave(exc: LabError, root: str = "") -> NoReturn:
    """Say what happened to the place, and where in the script."""
    at = [frame for frame in traceback.extract_tb(exc.__traceback__) if root and source.is_own(frame.filename, root)]
    sys.stdout.flush()
    errors.explain(exc, errors.OWN_CODES, f"{at[-1].filename}, line {at[-1].lineno}: {at[-1].line}" if at else "")
    sys.exit(errors.OWN_CODES + exc.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
