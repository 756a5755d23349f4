"""The workers of a map: give one a chunk, and ask now and then for what is finished.

On one host (``LocalCrew``) each worker has a pipe of its own, and one chunk at a time, so that it is known which chunk a
worker had when it died. (``multiprocessing.Pool`` waits for ever then; ``concurrent.futures`` breaks off as a whole.)
On the cluster (``ClusterCrew``) they are the processes of the context's Pool, which puts back what a dead worker had.
In both a chunk whose workers keep dying ends as WorkerLost.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any, Protocol

from lab.errors import LabError, WorkerLost
from lab.evidence import Who
from lab.mapping.chunk import Answer, Failure, Job, Payload
from lab.mapping.serve import serve
from producer.mapping.bell import Bell

MAX_DEATHS = 3
LEAVE_SECONDS = 2.0


@dataclass(eq=False)
class Task:
    """What one worker does at a time: successive items of a chunk.

    Attributes:
        owner: The chunk that the items belong to.
        start: Place of the first of them in it.
        payloads: The items as they travel.
        attempt: How often they have been tried before.
        deaths: How many workers died under them.
    """

    owner: Any
    start: int
    payloads: Sequence[Payload]
    attempt: int = 0
    deaths: int = 0


Finished = tuple[Task, Answer | BaseException]


class Crew(Protocol):
    """Workers in some place.

    Attributes:
        workers: How many there are at most.
        busy: Tasks that workers have, or that wait for one.
        room: How many more may be submitted now.
    """

    workers: int

    @property
    def busy(self) -> int: ...  # noqa: D102

    @property
    def room(self) -> int: ...  # noqa: D102

    def submit(self, task: Task) -> None:
        """Give a task to the next worker that is free."""

    def wait(self, timeout: float) -> list[Finished]:
        """Tasks that are finished, or were given up, as soon as there is one or the bell rings."""

    def close(self, at_once: bool) -> None:
        """Send the workers home; ``at_once`` if what they do is of no use any more."""


@dataclass(eq=False)
class _Worker:
    process: Any
    conn: Any
    task: Task | None = None
    deadline: float = float("inf")


class LocalCrew:
    """Threads, or processes of this host; started when there is something to do for them.

    Args:
        ctx: The context of the place.
        workers: How many.
        job: What they do.
        bell: Ends a wait.
    """

    def __init__(self, ctx: Any, workers: int, job: Job, bell: Bell) -> None:
        self._ctx, self.workers, self._job, self._bell = ctx, workers, job, bell
        self._team: list[_Worker] = []
        # A thread cannot end its call when the time is up. It is left alone with it, and another takes its place.
        self._patience = job.timeout if ctx.place == "threads" else None

    @property
    def busy(self) -> int:
        """Workers that have a task."""
        return sum(worker.task is not None for worker in self._team)

    @property
    def room(self) -> int:
        """Workers that have none; more than that would only wait in a pipe, which two full ends can block."""
        return self.workers - self.busy

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        worker = next((each for each in self._team if each.task is None), None) or self._hire()
        worker.task = task
        worker.deadline = time.monotonic() + self._patience if self._patience else float("inf")
        with suppress(OSError):  # it has died while it was idle; then its pipe reads as end of file
            worker.conn.send(task.payloads)

    def wait(self, timeout: float) -> list[Finished]:
        """Tasks that are finished, or were given up."""
        timeout = min([timeout, *(worker.deadline - time.monotonic() for worker in self._team)])
        ready = connection.wait([self._bell.fileno(), *(worker.conn for worker in self._team)], max(0, timeout))
        self._bell.hush()
        now = time.monotonic()
        finished = [self._receive(worker) for worker in list(self._team) if worker.conn in ready]
        finished += [self._abandon(worker) for worker in list(self._team) if worker.deadline <= now]
        return [each for each in finished if each]

    def close(self, at_once: bool) -> None:
        """Close the pipes, whose end tells a worker to go; kill who does not."""
        team, self._team = self._team, []
        for worker in team:
            worker.conn.close()
            if at_once and self._ctx.place != "threads":
                worker.process.kill()
        deadline = time.monotonic() + LEAVE_SECONDS
        for worker in team if not at_once or self._ctx.place != "threads" else ():
            worker.process.join(max(0, deadline - time.monotonic()))
            if worker.process.is_alive() and self._ctx.place != "threads":
                worker.process.kill()

    def _hire(self) -> _Worker:
        ours, theirs = self._ctx.Pipe()
        process = self._ctx.Process(target=serve, args=(theirs, self._job), name="map worker", daemon=True)
        # Excluded: Ctrl-C, which the terminal sends to all its processes, reaching the child before it can ignore it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self._team.append(worker := _Worker(process, ours))
        return worker

    def _receive(self, worker: _Worker) -> Finished | None:
        try:
            answer = worker.conn.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        except Exception as exc:  # noqa: BLE001 - what cannot be unpickled is for whoever gave the task
            answer = exc
        task, worker.task, worker.deadline = worker.task, None, float("inf")
        if task is None:
            return None
        return task, answer

    def _bury(self, worker: _Worker) -> Finished | None:
        self._team.remove(worker)
        worker.conn.close()
        worker.process.join(LEAVE_SECONDS)
        if (task := worker.task) is None:
            return None
        task.deaths += 1
        if len(task.payloads) == 1 and task.deaths < MAX_DEATHS:
            self.submit(task)
            return None
        code = worker.process.exitcode
        why = f"exit code {code}" + ("; it did not heed the time limit" if self._job.timeout and code == 1 else "")
        return task, WorkerLost(
            f"Its process died {task.deaths} times ({why}).",
            "Call the function with this item by itself to see why: it exits, crashes, or uses more memory than there is.",
        )

    def _abandon(self, worker: _Worker) -> Finished | None:
        self._team.remove(worker)
        worker.conn.close()
        assert worker.task is not None
        late = Failure("timeout", f"TimeoutError: not done after {self._patience:g} s; its thread goes on, unheard")
        return worker.task, Answer(Who.here(), self._patience or 0, [late])


class ClusterCrew:
    """Processes of the context's Pool.

    Args:
        ctx: The context, connected.
        workers: How many.
        job: What they do.
        bell: Rung when something is finished.
    """

    def __init__(self, ctx: Any, workers: int, job: Job, bell: Bell) -> None:
        self.workers, self._job, self._bell = workers, job, bell
        self.busy = 0
        self._finished: deque[Finished] = deque()
        self._pool = ctx.Pool(workers)

    @property
    def room(self) -> int:
        """Twice as many tasks as workers: nobody waits for the next while its answer travels."""
        return 2 * self.workers - self.busy

    def submit(self, task: Task) -> None:
        """Give a task to the next worker that is free."""
        self.busy += 1
        told = partial(self._tell, task)
        self._pool.apply_async(self._job.run, (task.payloads,), callback=told, error_callback=told)

    def _tell(self, task: Task, answer: Answer | BaseException) -> None:
        self._finished.append((task, answer))
        self._bell.ring()

    def wait(self, timeout: float) -> list[Finished]:
        """Tasks that are finished, or were given up."""
        connection.wait([self._bell.fileno()], timeout)
        self._bell.hush()
        finished = []
        while self._finished:
            finished.append(self._finished.popleft())
        self.busy -= len(finished)
        return finished

    def close(self, at_once: bool) -> None:
        """Close the pool."""
        with suppress(LabError):
            if at_once:
                self._pool.terminate()
            else:
                self._pool.close()
            self._pool.join()


def gather(ctx: Any, workers: int, job: Job, bell: Bell) -> Crew:
    """The crew of a place."""
    return ClusterCrew(ctx, workers, job, bell) if ctx.place == "cluster" else LocalCrew(ctx, workers, job, bell)
