"""What runs behind the walls: it grades one answer, in every order or in the places, and tells what came of it.

Explored, an answer runs in the process that judges it. So a verdict is told through a file that the answer is not handed, on
a line that begins with a word which nobody else knows; what it prints, and how it ends, is none. In the places the answer is
a process of its own, and the one that judges it has never run a line of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from producer.classroom.walls import WORK
from producer.exercise import checking
from producer.exercise.checking import Checked
from producer.exercise.exercise import load
from producer.explore import report
from producer.progress import Progress

PLACES = ["threads", "processes"]
"""Where an answer is run; a fleet needs what the walls keep out."""
PR_SET_DUMPABLE = 4


def checked(job: dict[str, Any]) -> Checked:
    """An answer, checked as the job says: in every order, or in the places."""
    exercises = Path(WORK, "exercises")
    folder = exercises / job["exercise"]
    folder.mkdir(parents=True)
    for name, text in job["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    exercise = load(job["exercise"], exercises, job["number"])
    _ = exercise.beginning, exercise.grader  # read before the answer can write
    file = Path(WORK, f"{exercise.name}.py")
    file.write_text(job["answer"], encoding="utf-8")
    if job["orders"]:
        return checking.check(exercise, file, [], job["seed"])
    chance = random.Random(job["seed"])
    exercise.grader.small(chance)  # drawn first, as in any check of this seed
    found = Checked(exercise, file, job["seed"])
    checking.place_it(found, PLACES, chance, Progress(None))
    return found


def told(found: Checked) -> dict[str, Any]:
    """What came of it, for whoever watches from outside."""
    tests = [
        {"name": f"in {one.scope}", "passed": one.fault is None,
         "output": report.explored(one.found) if one.found else ""}
        for one in found.explored
    ] + [
        {"name": f"on {one.place}, with {' '.join(one.args)}", "passed": one.fault is None,
         "output": f"{one.ops} operations recorded"}
        for one in found.placed
    ]  # fmt: skip
    fault, note = found.fault, found.note
    return {
        "tests": tests,
        "fault": str(fault) if fault else "",
        "kind": fault.name if fault else "",
        "note": note.says if note else "",
    }


def main(channel: int) -> None:
    """Grade the job that standard input has, and tell it to a descriptor."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no process of the answer's looks into this one
    job = json.loads(sys.stdin.read())
    word = job.pop("word")
    os.register_at_fork(after_in_child=lambda: os.close(channel))  # a copy of this process tells nothing
    said = json.dumps(told(checked(job)))
    with os.fdopen(channel, "w") as file:
        file.write(f"\n{word} {said}\n")
        file.flush()
        os._exit(0)  # whatever threads the answer has left


if __name__ == "__main__":
    main(int(sys.argv[1]))
