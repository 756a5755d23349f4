"""Exercises and what a check has found, in plain text: read from top to bottom, the first thing that went wrong first."""

from __future__ import annotations

from collections.abc import Iterable

from lab.explored.naming import text_of
from producer.exercise.checking import Checked
from producer.exercise.exercise import HINTS, Exercise
from producer.exercise.exploring import Explored
from producer.explore import report
from producer.learning.showing import plain, wrapped
from producer.output import counted


def listing(exercises: Iterable[tuple[Exercise, bool]]) -> str:
    """The exercises in a line each."""
    found = list(exercises)
    width = max(len(exercise.name) for exercise, _ in found)
    lines = [
        f"{exercise.name:{width}}  {exercise.minutes:>2} min  {'(passed) ' if passed else ''}{exercise.title}"
        for exercise, passed in found
    ]
    return "\n".join([*lines, "", "To begin one: producer exercise start NAME", ""])


def task(exercise: Exercise, file: str) -> str:
    """What is to be done."""
    return (
        f"{exercise.title}\n{exercise.minutes} minutes\n\n{plain(exercise.text['Task'])}\n\n{_number(exercise)}"
        f"The file to mend is {file}. It runs, and it is wrong: that is the exercise.\n"
        f"To have it checked: producer exercise check {file}\n"
        f"For a hint:         producer exercise hint {exercise.name}\n"
    )


def _number(exercise: Exercise) -> str:
    if exercise.number is None:
        return ""
    said = f"Your number is {exercise.number}: the program prints it first, and is to go on doing so."
    return f"{wrapped(said)}\n\n"


def hint(exercise: Exercise, number: int) -> str:
    """One of the three hints."""
    more = f"\nThe next one: producer exercise hint {exercise.name} {number + 1}\n" if number < len(HINTS) else ""
    return f"Hint {number} of {len(HINTS)}: {exercise.title}\n\n{plain(exercise.text[HINTS[number - 1]])}\n{more}"


def solution(exercise: Exercise) -> str:
    """One solution, and why it is one."""
    return f"{exercise.title}\n\n{exercise.solution.read_text()}\n{explanation(exercise)}"


def explanation(exercise: Exercise) -> str:
    """Why it is right now."""
    return f"Why\n\n{plain(exercise.text['Explanation'])}\n"


def checked(found: Checked) -> str:
    """How far a check has got; what went wrong first, or, if nothing did, the explanation."""
    lines = [f"{found.exercise.title}", f"{found.file}, chance's seed {found.seed}", ""]
    lines += [_explored(one) for one in found.explored]
    lines += [
        f"On {one.place}, with {' '.join(one.args)}: {'as it should' if one.fault is None else 'WRONG'}"
        f" ({one.ops} operations recorded, {one.seconds:.1f} s)"
        for one in found.placed
    ]
    text = "\n".join(lines) + "\n"
    if found.fault is None:
        left_out = [place for place in found.exercise.places if place not in [one.place for one in found.placed]]
        where = f"\nNot run on {', '.join(left_out)}; for that: --on {','.join(left_out)}\n" if left_out else ""
        return f"{text}{where}\nPASSED.\n\n{explanation(found.exercise)}"
    fault = found.fault
    text += f"\nNot right yet. The first thing that went wrong:\n{wrapped(str(fault), '  ')}\n"
    if fault.line:
        text += f"      {text_of((str(found.file), fault.line))}\n"
    if found.note is not None:
        text += f"\n{wrapped(found.note.says)}\n"
    return text


def after(found: Checked) -> str:
    """What to do next, below the picture."""
    lines = []
    if found.picture:
        lines.append(f"The picture is in {found.picture[0]}.")
    if len(found.picture) > 1:
        lines.append(f"The same order on a real place: producer replay {found.picture[1]} --on processes")
    lines.append(f"For a hint: producer exercise hint {found.exercise.name}")
    return "\n" + "".join(f"{line}\n" for line in lines)


def _explored(one: Explored) -> str:
    with_args = f"In {one.scope}"
    if one.found is None:
        return f"{with_args}: not run"
    how = (
        "as it should"
        if one.fault is None
        else f"{one.found.bad:,} of {counted(one.found.runs, 'run')} {'goes' if one.found.bad == 1 else 'go'} WRONG"
    )
    return f"{with_args}: {how}\n{_indented(report.explored(one.found))}\n{_indented(report.settings(one.found))}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
