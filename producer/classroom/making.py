"""``producer course new``: a class's folder, with a folder in it for each student, whose numbers are that student's own."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import unicodedata
from datetime import datetime
from pathlib import Path

from producer import output
from producer.classroom import register
from producer.classroom.enrolled import LESSONS, MANIFEST, BadCourse, Enrolled
from producer.classroom.register import FILE, STUDENTS, Class
from producer.exercise import exercise as exercises
from producer.learning import lesson as lessons
from producer.learning import own

LONGEST = 80
"""Characters of a name: it is a folder's as well."""
MOST = 10_000
FORBIDDEN = '/\\:*?"<>|'
"""What no folder's name may have in it, on one system or another."""


def new(
    folder: str, lesson: list[str], exercise: list[str], students: str, seed: int | None, due: datetime | None
) -> int:
    """Make a class, or add to one the students that are not in it yet.

    Args:
        folder: Where.
        lesson: Lessons to be taken.
        exercise: Exercises to be mended.
        students: A number of them, or a file with a name in each line.
        seed: What their numbers are made of; None to draw one.
        due: When answers are due; None for never.

    Returns:
        0.

    Raises:
        BadCourse: There is nothing to do in it, a name cannot be a folder's, or there is another class.
        OutputFailed: It cannot be written.
    """
    if not lesson and not exercise:
        raise BadCourse(
            "A course needs lessons, exercises, or both.",
            "For example: producer course new CLASS --lessons counter,lock --exercises lost_update,two_locks --students 20",
        )
    names = _names(students)
    _no_two_alike(names)
    made = _begun(Path(folder), lesson, exercise, seed, due)
    added = [name for name in names if name not in made.students]
    _no_two_alike([*made.students, *added])
    for name in added:
        made.students[name] = _enrol(made, name)
        made.write()  # after each: who is in the register has a folder, whenever this is interrupted
    output.write(_said(made, len(added)))
    return 0


def _said(made: Class, added: int) -> str:
    kept = len(made.students) - added
    return (
        f"{made.folder}: {added} student{'s' if added != 1 else ''} {'added' if kept else 'in it'}"
        f"{f', {kept} left as they were' if kept else ''}. Seed {made.seed}.\n"
        f"Give out the folders in {made.folder / STUDENTS}, keep {made.folder / FILE} to yourself,"
        f" and put back what comes back under the same name.\nThen: producer course grade {made.folder}\n"
    )


def _begun(folder: Path, lesson: list[str], exercise: list[str], seed: int | None, due: datetime | None) -> Class:
    """The class in a folder, if it is the same, else a new one."""
    if not (folder / FILE).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadCourse(
                f"{str(folder)!r} is there already, and is no class; it was left as it is.", "Name a new folder."
            )
        with output.written(str(folder)):
            (folder / STUDENTS).mkdir(parents=True)
        seed = random.SystemRandom().randrange(register.SEEDS) if seed is None else seed
        made = Class(folder, seed, lesson, exercise, due)
        made.write()
        return made
    there = register.read(folder)
    asked = (lesson, exercise, there.seed if seed is None else seed, due or there.due)
    if asked != (there.lessons, there.exercises, there.seed, there.due):
        raise BadCourse(
            f"There is another class in {str(folder)!r}: its seed is {there.seed}, its lessons"
            f" {', '.join(there.lessons) or 'none'}, its exercises {', '.join(there.exercises) or 'none'}, and it is due"
            f" {there.due.isoformat() if there.due else 'never'}.",
            "To add students to it, name the same ones; for another class, name another folder.",
        )
    return there


def _enrol(made: Class, name: str) -> str:
    """Make a student's folder; the digest of its manifest."""
    numbers = {exercise: register.own(made.seed, exercise, name).number for exercise in made.exercises}
    enrolled = Enrolled(made.of(name), name, tuple(made.lessons), numbers)
    manifest = json.dumps(enrolled.to_json(), indent=2, ensure_ascii=False) + "\n"
    with output.written(str(enrolled.folder)):
        enrolled.folder.mkdir(parents=True, exist_ok=True)  # it is there if this was interrupted
        (enrolled.folder / MANIFEST).write_text(manifest, encoding="utf-8")
        (enrolled.folder / "README.md").write_text(_readme(made, enrolled), encoding="utf-8")
        for exercise, number in numbers.items():
            text = exercises.load(exercise, number=number).beginning
            (enrolled.folder / f"{exercise}.py").write_text(text, encoding="utf-8")
        for lesson in made.lessons:
            _lesson(
                enrolled.folder / LESSONS / lesson, own.files(lesson, random.Random(f"{made.seed}/{lesson}/{name}"))
            )
    return digest(manifest.encode())


def _lesson(folder: Path, files: dict[str, str]) -> None:
    """A lesson with the student's own numbers, if there are any to be drawn."""
    for name, text in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def digest(data: bytes) -> str:
    """By which it is noticed that a manifest is another one."""
    return hashlib.sha256(data).hexdigest()


def _readme(made: Class, enrolled: Enrolled) -> str:
    """What a student has to do, with the numbers that are the student's own."""
    due = f" It is due {made.due:%Y-%m-%d %H:%M %Z}." if made.due else ""
    parts = [
        f"# {enrolled.student}\n\nWork in this folder: the commands below heed what lies in it, and need no network."
        f" Hand in all of it, with `{MANIFEST}` as it is.{due}\n"
    ]
    if made.lessons:
        parts.append("\n## Lessons\n\nSay what you expect, then see. A wrong prediction costs nothing.\n\n```\n")
        parts += [f"producer learn {name:20} # {lessons.load(name).title}\n" for name in made.lessons]
        parts.append("```\n")
    for name, number in enrolled.numbers.items():
        parts.append(_question(made, enrolled.student, name, number))
    return "".join(parts)


def _question(made: Class, student: str, name: str, number: int) -> str:
    exercise = exercises.load(name, number=number)
    chance = random.Random(register.own(made.seed, name, student).example)
    args = exercise.grader.large(chance, "threads")
    return (
        f"\n## {exercise.title}\n\n{exercise.text['Task']}\n\n"
        f"Your number is {number}: `{name}.py` prints it first, and is to go on doing so. With your sizes,\n"
        f"`python {name}.py {' '.join(args)}` is to print `{exercise.grader.expected(args)}`, however often it runs.\n\n"
        f"```\nproducer exercise check {name}.py\nproducer exercise hint {name}\n```\n"
    )


def _names(students: str) -> list[str]:
    """The students: so many, or those whom a file names."""
    if students.isdecimal():
        if not 1 <= int(students) <= MOST:
            raise BadCourse(f"--students {students}: from 1 to {MOST} there may be.", "Or name a file of names.")
        width = max(2, len(students))
        return [f"student-{number:0{width}}" for number in range(1, int(students) + 1)]
    try:
        text = sys.stdin.read() if students == "-" else Path(students).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadCourse(
            f"Cannot read names from {students!r}: {getattr(exc, 'strerror', None) or exc}.",
            "Name a file with a name in each line, - for standard input, or say how many there are: --students 20",
        ) from exc
    names = [unicodedata.normalize("NFC", line.strip()) for line in text.splitlines() if line.strip()]
    if not 1 <= len(names) <= MOST:
        raise BadCourse(f"{students!r} has {len(names)} names.", f"From 1 to {MOST} there may be, one in each line.")
    for name in names:
        if (
            len(name) > LONGEST
            or name[0] in ".-"
            or name[-1] == "."
            or not name.isprintable()
            or set(name) & set(FORBIDDEN)
        ):
            raise BadCourse(
                f"{name!r} can be no folder's name.",
                f"At most {LONGEST} characters, none of {FORBIDDEN} in it, no dot or dash before it and no dot behind it.",
            )
    return names


def _no_two_alike(names: list[str]) -> None:
    """No two names that are one folder on a system which takes large letters for small ones."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name or names.count(name) > 1:
            raise BadCourse(f"{other!r} and {name!r} would be one folder.", "Give each student a name of its own.")
