"""A schedule: one order of a program as data, to be shown, replayed, and forced on a real place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import ExitCode, LabError
from lab.explored.operation import Step
from lab.explored.search import Run

FORMAT = "crosshost schedule 1"


class BadSchedule(LabError, ValueError):
    """A file that holds no schedule, or one that no longer fits its program."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Turn:
    """One step of a schedule.

    Attributes:
        worker, operation, object, line: Who does what to what, where.
        result: What it returned, if that is a truth value or a number.
        expired: Whether its time was up before it could be done.
        raised: The class of what it raised.
    """

    worker: str
    operation: str
    object: str
    line: int
    result: Any = None
    expired: bool = False
    raised: str = ""

    @classmethod
    def of(cls, step: Step) -> Turn:
        """The turn of a step."""
        return cls(step.worker, step.kind, step.label, step.where[1], step.result, step.expired, step.raised)

    def __str__(self) -> str:
        return f"{self.worker}: {self.operation} {self.object} at line {self.line}"


@dataclass
class Schedule:
    """One order.

    Attributes:
        program: Absolute path of the script, or name of the concept.
        args: The script's arguments.
        sources: Digests of its files, by their path from its directory.
        kind, text: How it ends, as ``Outcome`` has it.
        turns: Its steps.
        unforced: What it uses whose turns cannot be forced; empty if all can.
    """

    program: str
    args: list[str]
    sources: dict[str, str]
    kind: str
    text: str
    turns: list[Turn] = field(default_factory=list)
    unforced: str = ""

    @classmethod
    def of(cls, run: Run, program: str, args: list[str], sources: dict[str, str]) -> Schedule:
        """The schedule of a run."""
        turns = [Turn.of(step) for step in run.trace if step.choice is not None or step.expired]
        return cls(program, args, sources, run.outcome.kind, run.outcome.text, turns, run.unforced)

    @property
    def workers(self) -> list[str]:
        """The workers that have a turn."""
        return list(dict.fromkeys(turn.worker for turn in self.turns))

    def write(self, file: str) -> None:
        """Write it to a file, as JSON."""
        value = {"format": FORMAT, **asdict(self)}
        Path(file).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: str) -> Schedule:
        """Read it from a file.

        Raises:
            BadSchedule: It cannot be read, or holds something else.
        """
        hint = "Make one: producer explore SCRIPT.py --save FILE"
        try:
            value = json.loads(Path(file).read_text(encoding="utf-8"))
            if value.pop("format") != FORMAT:
                raise ValueError("it has another format")
            turns = [Turn(**turn) for turn in value.pop("turns")]
            return cls(turns=turns, **value)
        except OSError as exc:
            raise BadSchedule(f"Cannot read {file!r}: {exc.strerror}.", hint) from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BadSchedule(f"{file!r} holds no schedule: {exc}", hint) from exc

    def check(self, root: str, digest: Any) -> None:
        """Whether the program still is the one that it was found in.

        Raises:
            BadSchedule: A source was changed since.
        """
        for name, known in self.sources.items():
            path = Path(root, name)
            if not path.is_file() or digest(str(path)) != known:
                raise BadSchedule(
                    f"The schedule is stale: {name} was changed since it was saved.",
                    f"Explore it again: producer explore {self.program} --save FILE",
                )
