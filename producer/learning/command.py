"""``producer learn`` and ``producer why``."""

from __future__ import annotations

from typing import Any

from lab.errors import ExitCode
from producer import output
from producer.classroom import enrolled
from producer.learning import asking, showing
from producer.learning.asking import NotAnswered
from producer.learning.finding import find
from producer.learning.keeping import Kept
from producer.learning.lesson import COURSE, BadLesson, Lesson, load, names
from producer.learning.taking import Taking
from producer.names import BadName


def show(as_json: bool) -> None:
    """List the lessons."""
    lessons = [(load(name), Kept(name).done()) for name in names()]
    if as_json:
        output.write_json([{**_described(lesson), "done": sorted(done)} for lesson, done in lessons])
        return
    output.write(showing.listing(lessons))


def why(symptom: str, as_json: bool) -> int:
    """Name the lessons for a symptom; the exit code says whether there is one."""
    lessons = [load(name) for name in names()]
    found = find(symptom, lessons)
    if as_json:
        output.write_json(
            [{**_described(each.lesson), "symptom": each.symptom, "score": round(each.score, 2)} for each in found]
        )
    elif found:
        output.write("".join(
            f"{each.lesson.title}\n  known as: {each.symptom}\n  producer learn {each.lesson.name}\n" for each in found
        ))  # fmt: skip
    else:
        output.write(
            f"No lesson is near to {symptom!r}. What is wrong with this machine, Docker, Redis or hosts: producer doctor."
            " These are all of the lessons:\n\n"
        )
        output.write(showing.listing((lesson, set()) for lesson in lessons))
    return ExitCode.OK if found else ExitCode.CHECK_FAILED


def questions(name: str, places: list[str]) -> None:
    """Write a lesson's questions, to be filled in."""
    output.write_json(asking.form(_own(name), places))


def _own(name: str) -> Lesson:
    """A lesson; in the folder of a course, with the numbers of whose it is.

    Raises:
        BadCourse: Somebody has changed it, so that it is no lesson any more.
    """
    found = enrolled.find()
    course = found.course(name) if found else None
    try:
        return load(name, course or COURSE)
    except (BadLesson, OSError, ValueError) as exc:
        if course is None:
            raise
        raise enrolled.BadCourse(
            f"The lesson in {course / name} is damaged: {exc}.", "Put back the folder that came with the course."
        ) from exc


def learn(name: str, places: list[str], answers: str | None, as_json: bool, rtt: float) -> int:
    """Take a lesson: ask, run, show, for each of its steps.

    Args:
        name: The lesson.
        places: Where to run; those where a program cannot run are left out.
        answers: Path of a file with the predictions; None to ask for them.
        as_json: Whether to write JSON, and nothing else, to stdout.
        rtt: Seconds of network between the cluster's hosts and Redis.

    Returns:
        0 if every effect of the lesson appeared, whatever was predicted; else 1.

    Raises:
        NotAnswered: Of a step that nobody has answered nothing is run.
    """
    lesson = _own(name)
    places = [place for place in places if place in lesson.places]
    if not places:
        raise BadName(f"{name!r} runs in none of these places.", f"Where it does: --on {','.join(lesson.places)}")
    if as_json and answers is None:
        raise NotAnswered("--json cannot ask.", f"Fill this in first: producer learn {name} --questions > answers.json")
    given = asking.read(answers, lesson, places) if answers else None
    taking = Taking(lesson, places, given, as_json, rtt)
    taken = taking.take()
    ok = all(seen.appeared for each in taken for seen in each.seen)
    if as_json:
        document = {"kept": str(taking.kept.path), "ok": ok, "steps": [each.to_json() for each in taken]}
        output.write_json({**_described(lesson), **document})
    return ExitCode.OK if ok else ExitCode.CHECK_FAILED


def _described(lesson: Lesson) -> dict[str, Any]:
    return {"name": lesson.name, "title": lesson.title, "minutes": lesson.minutes, "places": lesson.places}
