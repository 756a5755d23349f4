"""What a job is: its parameters with their bounds, and the pure functions that split, work and merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.errors import ExitCode, LabError

MOST_CHUNKS = 1_000
Chunk = tuple[Any, ...]
Arguments = Mapping[str, Any]
Progress = Callable[[int, int], None]


class BadArgument(LabError, ValueError):
    """An argument of a job, or of one of its chunks, is out of bounds."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Number:
    """A whole number that a job takes.

    Attributes:
        name: Name of the argument.
        default: Its value when it is not given.
        low: Smallest value that is taken.
        high: Largest.
        help: What it means, for ``--help``.
    """

    name: str
    default: int
    low: int
    high: int
    help: str

    def check(self, value: Any) -> int:
        """The value, if it is a whole number within the bounds.

        Raises:
            BadArgument: It is not; the message names the bounds.
        """
        return bounded(self.name, value, self.low, self.high)


@dataclass(frozen=True)
class Folder:
    """A folder of this machine whose files a job reads when it is split; the files travel, the folder does not."""

    name: str
    help: str

    def check(self, value: Any) -> str:
        """The path as text; whether it can be read shows when the job is split."""
        if not isinstance(value, str):
            raise BadArgument(f"{self.name} is {value!r}, not a path.")
        return value


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        summary: What it computes, in a line.
        parameters: What it takes.
        split: Cuts the arguments into chunks; each is the arguments of ``work``.
        work: Does one chunk. Pure: the same chunk gives the same part, in any process, at any time, any number of times.
        merge: Makes the result, in JSON's types, from the parts in the order of their chunks.
        show: The result as lines for people.
        settle: Replaces arguments that depend on the machine by ones that do not, where the job is submitted: its record says
            what was done, and can be done again.
        here: Runs the job on this host where mapping ``work`` over the chunks is not all there is to it, as it needs more
            than its chunk.
        long: Whether its chunks are long, and so wait in the queue for long ones.
    """

    summary: str
    parameters: tuple[Number | Folder, ...]
    split: Callable[..., list[Chunk]]
    work: Callable[..., Any]
    merge: Callable[[list[Any]], Any]
    show: Callable[[Arguments, Any], list[str]]
    settle: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    here: Callable[[Any, Arguments, int, Progress], Any] | None = None
    long: bool = False

    def check(self, arguments: Arguments) -> dict[str, Any]:
        """All arguments, the missing ones by default, each within its bounds.

        Raises:
            BadArgument: One is out of bounds, unknown or missing.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        if unknown := set(arguments) - set(known):
            raise BadArgument(f"There is no argument {min(unknown)!r}; there are: {', '.join(known)}.")
        defaults = {name: parameter.default for name, parameter in known.items() if isinstance(parameter, Number)}
        given = {**defaults, **arguments}
        checked = {name: parameter.check(given.get(name)) for name, parameter in known.items()}
        return self.settle(checked) if self.settle else checked

    def cut(self, arguments: Arguments) -> list[Chunk]:
        """The chunks of checked arguments, of which there are at most ``MOST_CHUNKS``.

        Raises:
            BadArgument: There would be none, or more.
        """
        chunks = self.split(**arguments)
        if not 1 <= len(chunks) <= MOST_CHUNKS:
            raise BadArgument(
                f"That makes {len(chunks)} chunks; a job has from 1 to {MOST_CHUNKS}.", "Take larger or fewer chunks."
            )
        return chunks


def bounded(name: str, value: Any, low: int, high: int) -> int:
    """The value, if it is a whole number from low to high.

    Raises:
        BadArgument: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadArgument(f"{name} is {value!r}; it has to be a whole number from {low} to {high}.")
    return value


def run_here(job: Job, arguments: Arguments, ctx: Any, workers: int, progress: Progress) -> Any:
    """Run a job on this host, by a pool of a context of ``lab.get_context``.

    Args:
        job: The job.
        arguments: Checked arguments.
        ctx: The context.
        workers: Number of the pool's workers.
        progress: Told chunks done and chunks in all, after each.
    """
    if job.here:
        return job.here(ctx, arguments, workers, progress)
    chunks, parts = job.cut(arguments), []
    with ctx.Pool(min(workers, len(chunks))) as pool:
        for part in pool.imap(partial(_unpacked, job.work), chunks):
            parts.append(part)
            progress(len(parts), len(chunks))
    return job.merge(parts)


def _unpacked(work: Callable[..., Any], chunk: Chunk) -> Any:
    return work(*chunk)
