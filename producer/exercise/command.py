"""``producer exercise``: list, start, check, hint, solution, watch."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import ExitCode, LabError
from lab.explored import pace
from lab.explored.search import Run
from producer import interrupt, output
from producer.classroom import enrolled
from producer.exercise import checking, showing
from producer.exercise.checking import Checked
from producer.exercise.claims import Fault
from producer.exercise.exercise import HINTS, Exercise, load, names
from producer.exercise.exploring import Explored
from producer.explore import report
from producer.explore.command import write_schedule
from producer.explore.program import Program
from producer.explore.stuck import line_in
from producer.learning.keeping import Kept
from producer.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

PATIENCE = 240.0
"""Seconds that the exploration may take: what computes for ever does nothing at which it could be ended."""
EVERY = 0.3
"""Seconds between two looks at a file that is watched."""
_said = ""
"""The file that is made when all has been said; empty for none."""


class BadExercise(LabError, ValueError):
    """A file that is no answer to an exercise."""

    exit_code = ExitCode.USAGE


def show(as_json: bool) -> None:
    """List the exercises."""
    found = [(load(name), "passed" in kept(name).steps()) for name in names()]
    if as_json:
        output.write_json([
            {"name": one.name, "title": one.title, "minutes": one.minutes, "places": one.places, "passed": passed}
            for one, passed in found
        ])  # fmt: skip
        return
    output.write(showing.listing(found))


def start(name: str, into: str, force: bool) -> None:
    """Copy the file to mend, and say what is to be done.

    Raises:
        BadExercise: There is such a file already.
        OutputFailed: It cannot be written.
    """
    exercise = _own(name, Path(into))
    file = os.path.normpath(os.path.join(into, f"{name}.py"))
    if os.path.lexists(file) and not force:
        raise BadExercise(
            f"There is a {file} already; it was left as it is.",
            f"To begin anew: producer exercise start {name} --force",
        )
    with output.written(file):
        Path(file).write_text(exercise.beginning, encoding="utf-8")
    output.write(showing.task(exercise, file))


def hint(name: str, number: int | None) -> None:
    """Show a hint: the one that was asked for, else the next after those that were shown."""
    exercise, seen = load(name), kept(name).steps()
    if number is None:
        number = next((at for at in range(1, len(HINTS) + 1) if f"hint {at}" not in seen), len(HINTS))
    kept(name).add(f"hint {number}")
    output.write(showing.hint(exercise, number))


def solution(name: str) -> None:
    """Show one solution, and why it is one."""
    output.write(showing.solution(load(name)))


def check(typed: str, name: str | None, places: list[str], seed: int | None, limit: int, as_json: bool) -> int:
    """Check an answer, and say what came of it.

    Args:
        typed: The answer's file, or the name of the exercise, whose file is then in the current folder.
        name: The exercise, if the file's name does not say it.
        places: Where to run it.
        seed: For chance; None to draw one.
        limit: Orders that are run, at most, with one set of arguments.
        as_json: Whether to write JSON, and nothing else, to stdout.

    Returns:
        0 if it passed, else 1.

    Raises:
        BadExercise: The file cannot be read, or is no exercise's.
        LabError: There is no fleet to connect to, and none could be started.
    """
    exercise, file = answer(typed, name)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    pictures = [f"{file.with_suffix('')}.picture.html", f"{file.with_suffix('')}.order.json"]
    for old in pictures:
        with suppress(OSError):
            os.unlink(old)
    progress = Progress(None if as_json else sys.stderr)
    with _ended_in_time(exercise, file, seed, as_json) as over:
        checked = checking.check(exercise, file, places, seed, limit, progress, over.set, pictures[0])
    if checked.shortest is not None:
        checked.picture = _draw(checked, *checked.shortest, pictures)
    _tell(checked, as_json)
    if checked.passed:
        kept(exercise.name).add("passed", file=str(file), seed=seed, places=[one.place for one in checked.placed])
    return ExitCode.OK if checked.passed else ExitCode.CHECK_FAILED


def check_apart(typed: str, name: str | None, places: list[str], seed: int | None, limit: int, as_json: bool) -> int:
    """``check`` in a process of its own, which an answer that is explored can end with any exit code.

    Excluded: to take the end of that process for a verdict. It passed if it has said so, and only then.

    Raises:
        BadExercise: The file cannot be read, or is no exercise's.
    """
    exercise, file = answer(typed, name)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="crosshost-check-") as folder:
        said = Path(folder, "said")
        command = [*_checking(exercise, file, places, seed, limit), "--said", str(said), *["--json"] * as_json]
        with interrupt.deferred():  # a session of its own: Ctrl-C comes once, from here
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait()
        finally:
            _end(process)
        if said.exists():
            return code
        stuck = line_in(_stuck(said).read_text(errors="replace"), str(file.parent)) if _stuck(said).exists() else None
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    fault = Fault("no verdict", f"it has ended the process that grades it, with {how}, before there was a verdict")
    if stuck is not None:
        held = "it does not end here: it is in C code, as of a regular expression, that lets nobody else run"
        fault = Fault("endless", held, stuck[1])
    _tell(Checked(exercise, file, seed, [Explored((), None, fault=fault)]), as_json)
    return ExitCode.CHECK_FAILED


def checked(said: str) -> Callable[..., int]:
    """``check``, which makes a file when it has said all."""

    def check_and_say(*args: Any) -> int:
        global _said
        _said = said
        if not said:
            return check(*args)
        with open(_stuck(Path(said)), "wb") as stuck:
            pace.watch = stuck.fileno()
            try:
                return check(*args)
            finally:
                pace.watch = None
                _all_said()

    return check_and_say


def _stuck(said: Path) -> Path:
    """Where it stands what an answer does that holds the interpreter for too long."""
    return said.with_name("stuck")


def _all_said() -> None:
    if _said:
        Path(_said).touch()


def _checking(exercise: Exercise, file: Path, places: list[str], seed: int | None, limit: int) -> list[str]:
    """The command that checks an answer. ``-P``: no file beside the answer is taken for a module of the standard library."""
    command = [sys.executable, "-P", "-m", "producer", "exercise", "check", str(file), "--exercise", exercise.name]
    command += ["--on", ",".join(places), "--limit", str(limit)]
    return command if seed is None else [*command, "--seed", str(seed)]


def answer(typed: str, name: str | None) -> tuple[Exercise, Path]:
    """The exercise, and the file of the answer.

    Raises:
        BadExercise: The file cannot be read, or is no exercise's.
    """
    file = Path(typed if typed.endswith(".py") else f"{typed}.py")
    name = name or file.stem
    if name not in names():
        raise BadExercise(
            f"{str(file)!r} has the name of no exercise.",
            f"Say which one it answers: producer exercise check {file} --exercise NAME\nThere are: {', '.join(names())}",
        )
    try:
        file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadExercise(
            f"Cannot read {str(file)!r}: {getattr(exc, 'strerror', None) or exc}.",
            f"To get the file to mend: producer exercise start {name}",
        ) from exc
    return _own(name, file.parent), file


def _own(name: str, folder: Path) -> Exercise:
    """An exercise; in the folder of a course, with the number of whose it is."""
    found = enrolled.find(folder)
    return load(name, number=found.numbers.get(name) if found else None)


def _tell(checked: Checked, as_json: bool) -> None:
    if as_json:
        output.write_json(checked.to_json())
        return
    output.write(showing.checked(checked))
    if checked.passed:
        return
    if checked.shortest is not None:
        output.write("\n")
        output.write_rich(_picture(*checked.shortest))
    output.write(showing.after(checked))


def _picture(run: Run, program: Program) -> list[RenderableType]:
    return [
        f"The shortest order in which it goes wrong ({output.counted(len(run.choices), 'step')}):",
        *report.drawn(run, program),
    ]


def _draw(checked: Checked, run: Run, program: Program, files: list[str]) -> list[str]:
    """Write the picture, and the order for ``producer replay``; where nothing can be written, there is none of them."""
    from rich.console import Console

    console = Console(record=True, width=100, file=open(os.devnull, "w"), highlight=False, markup=False)
    for part in [f"{checked.exercise.title}: {checked.file.name}", str(checked.fault), "", *_picture(run, program)]:
        console.print(part)
    console.file.close()
    with suppress(LabError, OSError):
        with output.written(files[0]):
            Path(files[0]).write_text(console.export_html(), encoding="utf-8")
        if not run.unforced:
            write_schedule(run, program, files[1])
    return [file for file in files if os.path.exists(file)]


@contextmanager
def _ended_in_time(exercise: Exercise, file: Path, seed: int, as_json: bool) -> Iterator[threading.Event]:
    """End the command, with what it was doing as the fault, if the answer computes for ever before the event is set."""
    over = threading.Event()

    def watch() -> None:
        if over.wait(PATIENCE):
            return
        lines = [
            line for top in sys._current_frames().values() for frame, line in traceback.walk_stack(top)
            if frame.f_code.co_filename == os.path.abspath(file)
        ]  # fmt: skip
        fault = Fault(
            "no end", f"it has not ended after {PATIENCE:g} seconds, and does nothing with what is shared", *lines[:1]
        )
        checked = Checked(exercise, file, seed, [Explored((), None, fault=fault)])
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        _tell(checked, as_json)
        _all_said()
        interrupt.leave(ExitCode.CHECK_FAILED)

    threading.Thread(target=watch, name="crosshost-patience", daemon=True).start()
    try:
        yield over
    finally:
        over.set()


def watch(typed: str, name: str | None, places: list[str], seed: int | None, limit: int) -> None:
    """Check an answer now, and again whenever it was saved, until Ctrl-C. Each check is a process of its own.

    Raises:
        BadExercise: The file cannot be read, or is no exercise's.
    """
    exercise, file = answer(typed, name)
    command = _checking(exercise, file, places, seed, limit)
    while True:
        before = _stamp(file)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            process.wait()
        finally:
            _end(process)
        output.write(f"\nWatching {file}: it is checked again when it is saved. Ctrl-C ends this.\n")
        while _stamp(file) in (before, None):  # None: an editor replaces it just now
            time.sleep(EVERY)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a check that still runs; it closes what it holds, its fleet above all."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def kept(name: str) -> Kept:
    """What is kept of an exercise: hints that were shown, and that it was passed."""
    return Kept(f"exercise-{name}")
