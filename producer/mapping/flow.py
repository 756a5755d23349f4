"""The flow of items: from the feed in chunks to the workers, and what became of them to the sink.

Bounded: at most ``WINDOW`` chunks for each worker are begun and not yet written, and no further one is begun while
``HELD_BYTES`` of results wait for an item before them. (``Pool.imap`` bounds neither: its task thread reads the whole
iterable, and results that are early wait in a dict.)

One thread, the caller's, does all of it; what other threads do is told by a bell.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from lab.errors import ExitCode, LabError, WorkerLost
from lab.evidence import Who
from lab.mapping.chunk import Answer, Failure, Outcome
from producer import interrupt
from producer.mapping.crew import Crew, Task
from producer.mapping.feed import Feed
from producer.mapping.pace import Pace
from producer.mapping.reader import Item
from producer.mapping.sink import Sink

WINDOW = 16
HELD_BYTES = 64 << 20
PIECES = 16
LOOK = 0.1
"""Seconds after which the journal and the progress are seen to, whether or not a chunk has ended."""


class ItemFailed(LabError, RuntimeError):
    """An item failed, and the map was to stop at it."""

    exit_code = ExitCode.STOPPED


@dataclass(eq=False)
class Chunk:
    """Successive items, and what became of them so far.

    Attributes:
        items: The items.
        outcomes: One for each; None while it is not known.
        left: How many are not known.
        failed: Whether one is a failure.
    """

    items: list[Item]
    outcomes: list[Outcome | None] = field(default_factory=list)
    left: int = 0
    failed: bool = False

    def __post_init__(self) -> None:
        self.outcomes = [Failure("input", item.fault) if item.fault else None for item in self.items]
        self.left = self.outcomes.count(None)
        self.failed = self.left < len(self.items)

    def tasks(self) -> list[Task]:
        """The items that can be sent, in runs of successive ones."""
        runs = _runs([outcome is None for outcome in self.outcomes])
        return [Task(self, first, [item.payload for item in self.items[first:last]]) for first, last in runs]


class Flow:
    """One map, from its first item to its last.

    Args:
        feed: The items.
        crew: The workers.
        sink: Where results go.
        pace: The size of chunks.
        ordered: Whether results are written in the order of the items.
        stop: Whether the first failed item ends the map.
        retries: How often a failed call is tried again.
        look: Called ten times a second at least.

    Attributes:
        bytes: Bytes of the input whose items are written.
        team: Items by worker.
    """

    def __init__(
        self,
        feed: Feed,
        crew: Crew,
        sink: Sink,
        pace: Pace,
        *,
        ordered: bool = True,
        stop: bool = False,
        retries: int = 0,
        look: Callable[[Flow], None] = lambda flow: None,
    ) -> None:
        self._feed, self._crew, self._sink, self._pace = feed, crew, sink, pace
        self._ordered, self._stop, self._retries, self._look = ordered, stop, retries, look
        self._open: deque[Chunk] = deque()  # begun and not written, in the order of the items
        self._waiting: deque[Task] = deque()
        self._held = 0
        self._stopping = False
        self.bytes = 0
        self.team: Counter[Who] = Counter()

    @property
    def busy(self) -> int:
        """How many workers have something to do."""
        return min(self._crew.busy, self._crew.workers)

    def run(self) -> None:
        """Do all items.

        Raises:
            ItemFailed: One failed, and the map was to stop at it. What was done is written.
            OutputFailed: A result could not be written.
            LabError: The crew cannot go on: the broker is gone, a host lacks the function ...
        """
        while True:
            self._fill()
            self._write()
            self._sink.commit()
            self._look(self)
            if not self._crew.busy and not self._waiting:
                if self._stopping:
                    self._give_up()
                if not self._open and self._feed.ended:
                    return
            for task, answer in self._crew.wait(LOOK):
                self._settle(task, answer)

    def salvage(self) -> None:
        """Write what is done, when the map has been interrupted: all of it, or as far as the order allows."""
        self._write()
        for chunk in list(self._open):
            for first, last in _runs([isinstance(outcome, bytes) for outcome in chunk.outcomes]):
                if self._ordered and (chunk is not self._open[0] or first > 0):
                    return
                self._put(chunk, first, last)

    def _fill(self) -> None:
        while self._crew.room > 0:
            if self._waiting and not self._stopping:
                self._crew.submit(self._waiting.popleft())
                continue
            if self._stopping:
                self._waiting.clear()
            full = len(self._open) >= WINDOW * self._crew.workers or self._held >= HELD_BYTES
            if full or self._stopping or not (items := self._feed.take(self._pace.size)):
                return
            chunk = Chunk(items)
            self._open.append(chunk)
            self._waiting.extend(chunk.tasks())
            self._stopping = self._stop and chunk.failed

    def _settle(self, task: Task, answer: Answer | BaseException) -> None:
        if isinstance(answer, WorkerLost) and len(task.payloads) > 1:
            self._split(task)
        elif isinstance(answer, WorkerLost):
            self._enter(task, 0, Failure("lost", f"WorkerLost: {answer.message}"))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            self.team[answer.who] += len(answer.outcomes)
            self._pace.learn(len(answer.outcomes), answer.seconds)
            for at, outcome in enumerate(answer.outcomes):
                self._enter(task, at, outcome)

    def _split(self, task: Task) -> None:
        """One of the items killed its workers: look for it among fewer, so that the others get their results."""
        size = -(-len(task.payloads) // PIECES)
        for at in range(0, len(task.payloads), size):
            self._waiting.append(Task(task.owner, task.start + at, task.payloads[at : at + size], task.attempt))

    def _enter(self, task: Task, at: int, outcome: Outcome) -> None:
        chunk: Chunk = task.owner
        if isinstance(outcome, Failure):
            if outcome.kind in ("call", "timeout") and task.attempt < self._retries:
                # After everything that waits: what was wrong may have passed by then, and another worker may have it.
                self._waiting.append(Task(chunk, task.start + at, [task.payloads[at]], task.attempt + 1))
                return
            chunk.failed = True
            self._stopping = self._stop
        else:
            self._held += len(outcome)
        chunk.outcomes[task.start + at] = outcome
        chunk.left -= 1

    def _write(self) -> None:
        """Write the chunks that are complete, as far as the order allows; not one whose failure ends the map."""
        for chunk in list(self._open):
            if chunk.left == 0 and not (chunk.failed and self._stop):
                # Excluded: Ctrl-C between the two, after which ``salvage`` would write the chunk a second time.
                with interrupt.deferred():
                    self._put(chunk, 0, len(chunk.items))
                    self._open.remove(chunk)
            elif self._ordered:
                return

    def _put(self, chunk: Chunk, first: int, last: int) -> None:
        outcomes: Sequence[Outcome] = [o for o in chunk.outcomes[first:last] if o is not None]
        items = chunk.items[first:last]
        self._sink.put(items, outcomes)
        self._held -= sum(len(outcome) for outcome in outcomes if isinstance(outcome, bytes))
        self.bytes += sum(item.size for item in items)

    def _give_up(self) -> NoReturn:
        """End the map at the first item that failed; everything that was in flight has come in."""
        item, failure = next(
            (item, outcome)
            for chunk in self._open
            for item, outcome in zip(chunk.items, chunk.outcomes, strict=True)
            if isinstance(outcome, Failure)
        )
        told = f"\n{failure.traceback.rstrip()}" if failure.traceback else ""
        raise ItemFailed(
            f"Item {item.index} (line {item.line}) failed: {failure.error}",
            f"To go on in spite of such items: --on-error collect, or skip.{told}",
        )


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Where successive flags are set: first, and one after the last."""
    runs: list[tuple[int, int]] = []
    for at, flag in enumerate(flags):
        if flag and runs and runs[-1][1] == at:
            runs[-1] = runs[-1][0], at + 1
        elif flag:
            runs.append((at, at + 1))
    return runs
