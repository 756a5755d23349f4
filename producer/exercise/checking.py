"""An answer, checked: in every order first, then in the places, and no further than to the first thing that goes wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.explored.search import Run
from producer.exercise import exploring, placing
from producer.exercise.claims import Fault, Note
from producer.exercise.exercise import Args, Exercise
from producer.exercise.exploring import Explored
from producer.exercise.placing import Placed
from producer.explore import grid, report
from producer.explore.program import Program
from producer.learning.running import room
from producer.progress import Progress


@dataclass
class Checked:
    """What came of a check.

    Attributes:
        exercise: The exercise.
        file: The answer.
        seed: What chance was made of.
        explored: In every order, for each set of arguments.
        placed: In the places.
        picture: Files that show what went wrong.
    """

    exercise: Exercise
    file: Path
    seed: int
    explored: list[Explored] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)

    @property
    def last(self) -> Explored | Placed | None:
        """What was done last: where something went wrong, it did there."""
        return (self.placed or self.explored or [None])[-1]

    @property
    def fault(self) -> Fault | None:
        """The first thing that went wrong; None if nothing did."""
        return self.last.fault if self.last else None

    @property
    def note(self) -> Note | None:
        """What is said of such an answer."""
        return self.last.note if self.last else None

    @property
    def shortest(self) -> tuple[Run, Program] | None:
        """The shortest order in which it goes wrong, and whose it is; None where none was found."""
        found = [(one.run, one.program) for one in self.explored if one.run and one.program]
        return found[-1] if found else None

    @property
    def passed(self) -> bool:
        """Whether the answer is right, as far as was looked."""
        return bool(self.explored) and self.fault is None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "exercise": self.exercise.name,
            "file": str(self.file),
            "passed": self.passed,
            "seed": self.seed,
            "fault": None if (fault := self.fault) is None else {
                "name": fault.name, "line": fault.line or None, "text": fault.text, "sentence": str(fault),
            },
            "note": None if self.note is None else {"name": self.note.name, "says": self.note.says},
            "explored": [_explored(one) for one in self.explored],
            "shortest": grid.as_json(*self.shortest) if self.shortest else None,
            "places": [
                {
                    "place": one.place, "args": one.args, "seconds": round(one.seconds, 2), "operations": one.ops,
                    "passed": one.fault is None,
                }
                for one in self.placed
            ],
            "picture": self.picture,
            "explanation": self.exercise.text["Explanation"] if self.passed else None,
        }  # fmt: skip


def _explored(one: Explored) -> dict[str, Any]:
    found = one.found
    if found is None:
        return {"args": one.args, "runs": 0, "passed": False}
    return {
        "args": one.args, "runs": found.runs, "complete": found.complete, "interleavings": found.orders,
        "bound": found.bound, "seed": found.seed, "limit": found.limit, "bad runs": found.bad,
        "passed": one.fault is None, "said": report.explored(found),
    }  # fmt: skip


def check(
    exercise: Exercise,
    file: Path,
    places: list[str],
    seed: int,
    limit: int = exploring.LIMIT,
    progress: Progress | None = None,
    explored: Callable[[], object] | None = None,
    picture: str = "",
) -> Checked:
    """Check an answer.

    Args:
        exercise: Whose answer it is.
        file: The answer.
        places: Where to run it, of those where it can run.
        seed: For sizes and for what is drawn.
        limit: Orders that are run, at most, with one set of arguments.
        progress: Told what takes long.
        explored: Called when all has been explored, before it is run in the places.
        picture: File for what went wrong in a place; empty for none.

    Raises:
        LabError: There is no fleet to connect to, and none could be started.
    """
    progress = progress or Progress(None)
    chance = random.Random(seed)
    checked = Checked(exercise, file, seed)
    large = exercise.grader.large(random.Random(f"{seed} large"), "processes")
    for orders, args, runs, steps in (
        *(("every order", args, limit, exploring.STEPS) for args in exercise.grader.small(chance)),
        ("some orders", large, exploring.LARGE, exploring.LARGE_STEPS),
    ):
        progress.say(f"{exercise.name}: in {orders}, with {' '.join(args)} ...")
        one = exploring.explore(exercise, file, args, seed, runs, steps)
        one.orders = orders
        checked.explored.append(one)
        if checked.fault is not None:
            progress.clear()
            return checked
    if explored is not None:
        explored()
    place_it(checked, places, chance, progress, picture)
    progress.clear()
    return checked


def place_it(checked: Checked, places: list[str], chance: random.Random, progress: Progress, picture: str = "") -> None:
    """Run an answer in the places, of those where it can run, up to the first in which something goes wrong.

    Args:
        checked: To be added to.
        places: Where to run it.
        chance: For sizes.
        progress: Told what takes long.
        picture: File for what went wrong in a place; empty for none.

    Raises:
        LabError: There is no fleet to connect to, and none could be started.
    """
    exercise, file = checked.exercise, checked.file
    here = [place for place in places if place in exercise.places]
    if here:
        sizes: dict[str, Args] = {place: exercise.grader.large(chance, place) for place in here}
        with room(here, progress) as where:
            for place in here:
                progress.say(f"{exercise.name}: on {place}, with {' '.join(sizes[place])} ...")
                checked.placed.append(placing.run(exercise, file, place, sizes[place], where, picture=picture))
                if checked.fault is not None:
                    checked.picture = [picture] if os.path.exists(picture) else []
                    break
