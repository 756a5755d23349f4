"""Each job as a canvas: what runs side by side, and what waits for what.

A signature names a task and its arguments and is no more than data, so nothing of the worker is imported here. ``group``
runs signatures side by side; ``chord`` is a group and a task that gets all its results; ``chain`` hands each result to the
next; ``chunks`` puts several calls into one message. Every task gets its id here, so that all of a job's tasks are known
before the first is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from celery.canvas import Signature, chain, chord, chunks, group

from lab.jobs import montecarlo, wordcount
from lab.jobs.app import GRACE, JobApp
from lab.jobs.job import Arguments, Chunk


class Canvas:
    """Makes the signatures of one job.

    Args:
        app: The app that sends them.
        job_id: Id of the job.
        arguments: What the job was given.
        queue: Queue for all of its tasks.
        soft_limit: Seconds that one task may take.

    Attributes:
        tasks: The ids given so far.
        merged: Whether there is a last task, which has the job's own id and makes its result.
    """

    def __init__(self, app: JobApp, job_id: str, arguments: Arguments, queue: str, soft_limit: int) -> None:
        self.app, self.job_id, self.arguments = app, job_id, arguments
        self.tasks: list[str] = []
        self.merged = False
        self._options: dict[str, Any] = {
            "queue": queue,
            "soft_time_limit": soft_limit,
            "time_limit": soft_limit + GRACE,
        }

    def task(self, name: str, *args: Any) -> Signature[Any]:
        """A task by name."""
        return self.named(self.app.signature(f"jobs.{name}", args=args))

    def last(self, name: str) -> Signature[Any]:
        """The task that makes the result."""
        self.merged = True
        return self.named(self.app.signature(f"jobs.{name}"), self.job_id)

    def named(self, signature: Signature[Any], task_id: str = "") -> Signature[Any]:
        """The signature with an id, a queue and limits."""
        self.tasks.append(task_id or f"{self.job_id}.{len(self.tasks) + 1}")
        return signature.set(task_id=self.tasks[-1], **self._options)

    def all(self, name: str, pieces: Sequence[Chunk]) -> list[Any]:
        """A task by name for each chunk."""
        return [self.task(name, *piece) for piece in pieces]


def primes(canvas: Canvas, pieces: list[Chunk]) -> Any:
    """A chord: count each range, then add up."""
    return chord(canvas.all("primes.count", pieces), canvas.last("primes.total"), app=canvas.app)


def mandelbrot(canvas: Canvas, pieces: list[Chunk]) -> Any:
    """A group: tiles, and nothing that waits for them."""
    return group(canvas.all("mandelbrot.draw", pieces), app=canvas.app)


def wordcount_tree(canvas: Canvas, pieces: list[Chunk]) -> Any:
    """Chords in chords: merge every few counts, then every few merges, until one is left."""
    level = canvas.all("wordcount.count", pieces)
    while len(level) > wordcount.FAN_IN:
        level = [_merge(canvas, level[i : i + wordcount.FAN_IN]) for i in range(0, len(level), wordcount.FAN_IN)]
    return chord(level, canvas.last("wordcount.merge"), app=canvas.app)


def _merge(canvas: Canvas, few: list[Any]) -> Any:
    return few[0] if len(few) == 1 else chord(few, canvas.task("wordcount.merge"), app=canvas.app)


def montecarlo_chunks(canvas: Canvas, pieces: list[Chunk]) -> Any:
    """Chunks: a message carries several streams, as a short call costs less than its message."""
    throw: Any = canvas.app.signature("jobs.montecarlo.throw")
    messages = chunks(throw, pieces, montecarlo.PER_MESSAGE, app=canvas.app).group()
    named = [canvas.named(message) for message in messages.tasks]
    return chord(named, canvas.last("montecarlo.estimate"), app=canvas.app)


def counter(canvas: Canvas, pieces: list[Chunk]) -> Any:
    """A chord: all adders at once, then read what they have added up to."""
    return chord(canvas.all("counter.add", pieces), canvas.last("counter.read"), app=canvas.app)


def flaky(canvas: Canvas, _pieces: list[Chunk]) -> Any:
    """A chain: the second task gets the first one's result, once that has succeeded."""
    first = canvas.task("flaky.attempt", *(canvas.arguments[name] for name in ("failures", "seconds", "stubborn")))
    return chain(first, canvas.last("flaky.report"), app=canvas.app)


COMPOSE: dict[str, Callable[[Canvas, list[Chunk]], Any]] = {
    "primes": primes,
    "mandelbrot": mandelbrot,
    "wordcount": wordcount_tree,
    "montecarlo": montecarlo_chunks,
    "counter": counter,
    "flaky": flaky,
}
