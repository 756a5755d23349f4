"""Running a script in a place, as ``python SCRIPT.py`` would run it; or ``python -m MODULE``, or ``python -``.

The command replaces this process by a fresh interpreter (``exec``; ``producer.begin``), which runs ``main``: so the script
meets no trace of the command line's own modules, signal handlers and threads. Its exit code is passed through. The
producer's own ends are told apart by ``errors.OWN_CODES``: 104 is "broker unreachable", 4 is what the script made of 4.

The script is compiled before anything else happens. A fleet that exists is connected to before the script begins, as one
that cannot be reached is best told then; an embedded one is started by the script's first ``import multiprocessing``, so
that a script without it needs none, and one with it does not meet the time of the start in its own measurements.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from multiprocessing import context, get_context, util
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import lab
from lab import mainmodule
from lab.errors import ExitCode, LabError
from lab.program import along, locked, namesakes, source
from lab.program.standin import StandIn
from lab.settings import Settings
from producer import errors

if TYPE_CHECKING:
    from lab.trace.context import Tracing

STDIN = "<stdin>"
"""What Python calls a program that comes on standard input."""


def hand_over(
    script: str,
    place: str,
    args: list[str],
    trace: str = "",
    report: str = "",
    with_it: Sequence[str] = (),
    packages: str = "",
) -> NoReturn:
    """Become the interpreter that runs a script in a place; does not return.

    Args:
        script: Path of the script; ``-`` for standard input, ``-m`` for the module that the first argument names.
        place: One of ``lab.PLACES``.
        args: What the script finds in ``sys.argv[1:]``.
        trace: File for a trace; empty for none.
        report: File for a report; empty for none.
        with_it: Data files, and folders of them, that travel with the script.
        packages: A file with the packages that its hosts are to have; empty for none.

    Raises:
        BadName: There is no such file, or it cannot be read.
    """
    if script not in ("-", "-m"):
        _check_file(script)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where the shell has closed it
            stream.flush()
    # Excluded: a hash of a text that is another one in each child, by which children share out work among themselves. Where
    # a child is forked it has its parent's; those of spawn, and the hosts of a fleet that the script starts, have it by this.
    os.environ.setdefault("PYTHONHASHSEED", str(secrets.randbelow(1 << 32)))
    os.execv(sys.executable, command(script, place, args, trace, report, with_it, packages))  # noqa: S606


def detach(
    script: str, place: str, args: list[str], traced: bool, with_it: Sequence[str], packages: str, restart: bool
) -> None:
    """Leave a script to the fleet (``producer.jobs.detach``).

    Args:
        script: As for ``hand_over``.
        place: Likewise; the cluster.
        args: Likewise.
        traced: Whether a trace or a report was asked for.
        with_it: Likewise.
        packages: Likewise.
        restart: Whether it may be started again when its host dies.

    Raises:
        BadUsage: What was asked for needs this terminal.
        CannotTake: A data file cannot travel.
    """
    from producer.jobs import detach as detaching

    if place != "cluster":
        raise errors.BadUsage(
            f"Only a fleet outlives this command, and --on {place} is this machine.", "Leave out --on."
        )
    if traced:
        raise errors.BadUsage(
            "A trace and a report are written by the command that they are asked of, which --detach does not wait for.",
            "Leave out --detach, or --trace and --report.",
        )
    if script not in ("-", "-m"):
        _check_file(script)
    along.take(with_it)
    _bring(packages, place)
    detaching.run(script, args, restart)


def command(
    script: str,
    place: str,
    args: list[str],
    trace: str = "",
    report: str = "",
    with_it: Sequence[str] = (),
    packages: str = "",
) -> list[str]:
    """The command line of that interpreter."""
    # -P: what lies in the current directory is not to be taken for a part of this program
    along_with = json.dumps({"with_it": with_it, "packages": packages})
    return [sys.executable, "-P", "-m", "producer.begin", trace, report, along_with, place, script, *args]


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


def main(
    place: str,
    script: str,
    *args: str,
    trace: str = "",
    report: str = "",
    with_it: Sequence[str] = (),
    packages: str = "",
) -> None:
    """Run a script in this process, which does nothing else."""
    sys.excepthook = _show
    # at once: the script may change the directory
    trace, report = (os.path.abspath(path) if path else "" for path in (trace, report))
    of_module, stdin = script == "-m", script == "-"
    name = args[0] if of_module else script
    root = os.getcwd() if of_module or stdin else os.path.dirname(os.path.realpath(script))
    path = STDIN if stdin else os.path.abspath(script)
    files = {STDIN: sys.stdin.buffer.read()} if stdin else None
    try:
        own = source.Own(root, files, _stand_in(place, root, name, trace, report))
        (along.take if place == "cluster" else along.check)(with_it)
        _bring(packages, place)
        code = None if of_module else own.compiled(path, "__main__")
        _enter(place, own, bool(trace or report))
    except LabError as exc:
        _leave(exc)
    except KeyboardInterrupt:
        sys.exit(130)
    except SyntaxError as exc:
        if stdin:  # which was read already
            traceback.print_exception(exc.with_traceback(None))
            sys.exit(1)
        # Python says best what is wrong with a file that it cannot run; of one that is no text, compile() knows less
        os.execv(sys.executable, [sys.executable, script, *args])  # noqa: S606
    if stdin and place == "processes":
        from lab import byvalue

        byvalue.install()  # no child of this host finds a file to run again either
    if place == "cluster":
        namesakes.make_way(own)
    sys.argv[:] = args if of_module else [script, *args]
    sys.path.insert(0, "" if stdin else root)
    if place == "cluster" and Settings.from_env().broker_url:
        _warn(root, name if of_module else files[STDIN] if files else path)
    _forget_producer()
    try:
        if of_module:
            own.run_module_as_main(name)
        else:
            own.run_as_main(path, "__main__", code)
        if mainmodule.told:
            sys.exit(errors.OWN_CODES + ExitCode.CANNOT_LOAD)
    except LabError as exc:
        _leave(exc, root)


def _bring(packages: str, place: str) -> None:
    """Have the hosts of a fleet install what the script goes with; elsewhere it is enough that it could be."""
    if packages and place == "cluster":
        from producer import sync

        text = locked.read(packages)
        sync.sync(text, packages)
        locked.want(text)
    elif packages:
        locked.read(packages)


def _stand_in(place: str, root: str, script: str, trace: str, report: str) -> StandIn | None:
    if trace or report:
        return _traced(place, root, script, trace, report)
    return None if place == "processes" else StandIn(place, partial(_context, place))


def _enter(place: str, own: source.Own, traced: bool) -> None:
    """Make a place what the script's ``import multiprocessing`` means."""
    if place == "processes":
        # the standard library's own, whose default start method is the place's until the script sets one
        default: Any = context._default_context
        default._default_context = get_context(lab.get_context(place).get_start_method())
    if own.stand_in is None:
        return
    if place == "cluster":
        from producer import stayed, terminal

        stayed.watch(own.root)
        stand_in = own.stand_in
        terminal.pass_interrupts_on(lambda: vars(stand_in).get("ctx"))  # made when it is needed
    if traced or (place == "cluster" and Settings.from_env().broker_url):
        _ = own.stand_in.ctx  # made now, and connected; a record begins with it
    own.install()


def _warn(root: str, main: str | bytes) -> None:
    """Name what the hosts of a fleet that was there before lack of what the program imports."""
    from lab.store import run as runs
    from producer import lacking

    if (run := runs.current()) is not None:
        lacking.warn(root, main, run.store)


def _traced(place: str, root: str, script: str, trace: str, report: str) -> StandIn:
    """A stand-in with a record, which is written when the script's children have ended, or when it is told to end.

    There is a fleet then.
    """
    from lab.trace import script as traced
    from lab.trace.recorder import end_when_told
    from producer.trace import written

    def keep(tracing: Tracing) -> None:
        util.Finalize(None, lambda: written.write(trace, report, [tracing.end()]), exitpriority=-50)
        end_when_told(lambda: written.write(trace, report, [tracing.gather()]))

    return traced.stand_in(place, partial(_context, place), root, os.path.basename(script), keep)


def _context(place: str) -> Any:
    """The context of a place, ready for use."""
    try:
        ctx = lab.get_context(place)
        if place == "cluster":
            ctx.connect()
    except KeyboardInterrupt:  # it is the start of a fleet that is broken off; the script is not at fault
        sys.exit(130)
    return ctx


def _forget_producer() -> None:
    """Let the script have a module named ``producer`` of its own."""
    namesakes.forget("producer")


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
