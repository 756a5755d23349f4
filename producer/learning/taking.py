"""Taking a lesson: ask, keep, run, show, explain, for one step after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from producer import output
from producer.learning import asking, showing
from producer.learning.comparing import Predictions, Seen, compare
from producer.learning.keeping import Kept
from producer.learning.lesson import Lesson, Step
from producer.learning.running import Printed, Room, explore, room
from producer.progress import Progress


@dataclass(frozen=True)
class Taken:
    """A step that was taken.

    Attributes:
        step: The step.
        printed: What its program printed, by place.
        seen: The answers to its questions.
    """

    step: Step
    printed: Mapping[str, Printed]
    seen: list[Seen]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "step": self.step.name,
            "program": self.step.program.name,
            "printed": {place: {**vars(each), "failure": each.failure()} for place, each in self.printed.items()},
            "seen": [seen.to_json() for seen in self.seen],
        }


class Taking:
    """A lesson, taken once.

    Args:
        lesson: The lesson.
        places: Where its programs run, as far as they can.
        given: Predictions by step; None to ask for them.
        quiet: Whether nothing is to be said meanwhile.
        rtt: Seconds of network between the cluster's hosts and Redis.
    """

    def __init__(
        self, lesson: Lesson, places: list[str], given: Mapping[str, Predictions] | None, quiet: bool, rtt: float
    ) -> None:
        self.kept = Kept(lesson.name)
        self._lesson, self._places, self._given, self._rtt = lesson, places, given, rtt
        self._quiet = quiet
        self._say: Callable[[str], None] = (lambda _: None) if quiet else output.write
        self._progress = Progress(None if quiet else sys.stderr)

    def take(self) -> list[Taken]:
        """Take its steps.

        Raises:
            NotAnswered: Of a step that nobody has answered nothing is run.
        """
        taken = []
        self._say(showing.opening(self._lesson))
        with ExitStack() as stack:
            where: Room | None = None
            for step in self._lesson.steps:
                self._say(showing.program(step))
                if here := [place for place in self._places if place in step.places]:
                    predictions = self._predictions(step, here)
                    self.kept.add(step.name, predicted=predictions)
                    # not before there is a prediction
                    where = where or stack.enter_context(room(self._places, self._progress, self._rtt))
                    taken.append(self._run(step, here, predictions, where))
                    self.kept.add(step.name, measured=[seen.to_json() for seen in taken[-1].seen])
                else:
                    self._say(f"\nThis one runs on {' and '.join(step.places)} only.\n")
                self._explain(step)
        return taken

    def _predictions(self, step: Step, places: list[str]) -> Predictions:
        return asking.ask(step, places, asking.line) if self._given is None else self._given[step.name]

    def _run(self, step: Step, places: list[str], predictions: Predictions, where: Room) -> Taken:
        """Run a step's program in each place, and show predictions beside what it printed."""
        printed = {}
        for place in places:
            self._progress.say(f"{step.program.name} on {place} ...")
            printed[place] = where.run(step.program, place)
            self._progress.clear()
        seen = compare(step, predictions, printed)
        self._say(showing.printed(printed) + showing.seen(seen))
        return Taken(step, printed, seen)

    def _explain(self, step: Step) -> None:
        """Explain what happened; and where somebody reads, do not go on by itself."""
        lesson = self._lesson
        text = lesson.text["Explain" if step is lesson.steps[0] else step.title]
        if step.explored is not None and not self._quiet:
            text = showing.live(text, explore(step.explored))
        self._say(f"\n{showing.plain(text)}\n")
        if step is lesson.steps[-1]:
            self._say("".join(["\nTo read on:\n", *(f"- {source}\n" for source in lesson.sources)]))
            self._say(f"\nYour predictions are kept in {self.kept.path}.\n")
        elif self._given is None and sys.stdin.isatty():
            asking.line("\nTo go on, press Enter (Ctrl-C to leave it here). ")
