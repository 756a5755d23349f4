"""The jobs that a fleet knows: what was asked, what became of each task, who worked on it.

On Redis, with the id of a job for ID, all of it kept for ``Settings.keep`` seconds after the last thing that happened:
``crosshost:jobs`` (sorted set, id -> time of submission in ms), ``crosshost:job:ID`` (hash: the sealed ``record``,
``sent`` when all messages are out, ``cancelled``), ``crosshost:job:ID:tasks`` (hash, task -> its sealed state),
``crosshost:job:ID:runs:TASK/RETRIES`` (set, one member for each time that it was begun),
``crosshost:job:ID:handed:TASK/RETRIES`` (those of them that ended as their worker was told to stop),
``crosshost:job:ID:who`` (set of "host/process id").
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from lab.errors import NoSuchJob, WrongKey
from lab.settings import Settings
from lab.store.store import Store
from lab.store.wire import LastingKeys

JOBS = "crosshost:jobs"
PREFIX = "crosshost:job:"
ENDED = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


def job_key(job_id: str, *parts: str) -> str:
    """A key of a job."""
    return ":".join((PREFIX + job_id, *parts))


def job_of(task_id: str) -> str:
    """The job that a task belongs to: tasks are called ``ID.1``, ``ID.2`` ..., and the last step ``ID``."""
    return task_id.partition(".")[0]


def begun_keys(task_id: str, retries: int) -> list[str]:
    """Where it is noted how often a try of a task was begun, and how often of those it was handed over."""
    return [job_key(job_of(task_id), kind, f"{task_id}/{retries}") for kind in ("runs", "handed")]


def new_run(who: str) -> str:
    """A name for one run of a task by a process, "host/process id", which may get the same task, and the same id, again."""
    return f"{who} {secrets.token_hex(4)}"


@dataclass(frozen=True)
class Record:
    """What was asked for.

    Attributes:
        id: The job's id; also that of its last task, where one makes the result of the others'.
        name: Which job.
        arguments: Its arguments.
        submitted: Seconds since 1970.
        tasks: Ids of all its tasks, in order.
        merged: Whether the last task makes the result; else the results of all tasks do.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    submitted: float
    tasks: list[str]
    merged: bool


@dataclass(frozen=True)
class Task:
    """Where one task has got to.

    Attributes:
        state: Celery's name for it: PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED.
        who: "host/process id" of who works on it or last did, if known.
        error: What went wrong.
    """

    state: str = "PENDING"
    who: str = ""
    error: str = ""


@dataclass(frozen=True)
class Job:
    """A job and where its tasks have got to.

    Attributes:
        record: What was asked for.
        tasks: Task by id.
        sent: Whether all its messages were sent.
        cancelled: Whether it was cancelled.
        workers: "host/process id" of all that have worked on it.
    """

    record: Record
    tasks: dict[str, Task] = field(default_factory=dict)
    sent: bool = True
    cancelled: bool = False
    workers: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Tasks that have succeeded."""
        return sum(task.state == "SUCCESS" for task in self.tasks.values())

    @property
    def state(self) -> str:
        """queued, running, done, failed or cancelled."""
        states = {task.state for task in self.tasks.values()}
        last = self.tasks[self.record.tasks[-1]].state
        if (last == "SUCCESS" and self.record.merged) or states == {"SUCCESS"}:
            return "done"
        if self.cancelled:
            return "cancelled"
        if "FAILURE" in states:
            return "failed"
        return "queued" if states == {"PENDING"} else "running"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "cancelled")

    def having(self, *states: str) -> dict[str, Task]:
        """The tasks in one of these states, by id."""
        return {name: task for name, task in self.tasks.items() if task.state in states}


@dataclass(frozen=True)
class Begun:
    """What a worker has to know before it begins a task.

    Attributes:
        known: Whether the job is (still) recorded.
        cancelled: Whether it was cancelled.
        runs: How often this try of the task was begun, this time included.
        handed_over: How often of those a worker that stopped left it to another.
    """

    known: bool
    cancelled: bool
    runs: int
    handed_over: int


class Records:
    """The records, for both sides.

    Args:
        store: Redis.
        settings: The keys that seal them, and how long they are kept.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.keys = LastingKeys(settings.keyring, "jobs")
        self._keep = int(settings.keep * 1000)

    def add(self, record: Record) -> None:
        """Record a job, before any of its messages is sent."""
        key, milliseconds = job_key(record.id), int(record.submitted * 1000)
        sealed = self.keys.seal(key, json.dumps(asdict(record)).encode())
        self.store.pipeline(
            [
                ("HSET", key, "record", sealed),
                ("PEXPIRE", key, self._keep),
                ("ZADD", JOBS, milliseconds, record.id),
                ("PEXPIRE", JOBS, self._keep),
            ]
        )

    def sent(self, job_id: str) -> None:
        """Record that all messages of a job are out."""
        self.store.pipeline([("HSET", job_key(job_id), "sent", 1), ("PEXPIRE", job_key(job_id), self._keep)])

    def cancel(self, job_id: str) -> None:
        """From now on, no task of the job is begun.

        This is what lasts. Celery's revocation is a broadcast, and a worker that starts after it has not heard it.
        """
        self.store.pipeline([("HSET", job_key(job_id), "cancelled", 1), ("PEXPIRE", job_key(job_id), self._keep)])

    def ids(self) -> list[str]:
        """The jobs that have not expired, oldest first."""
        ids = [member.decode() for member in self.store.call("ZRANGEBYSCORE", JOBS, "-inf", "+inf")]
        found = self.store.pipeline([("EXISTS", job_key(job_id)) for job_id in ids]) if ids else []
        if gone := [job_id for job_id, exists in zip(ids, found, strict=True) if not exists]:
            self.store.call("ZREM", JOBS, *gone)
        return [job_id for job_id in ids if job_id not in gone]

    def find(self, job_id: str) -> Job:
        """A job and its state.

        Raises:
            NoSuchJob: None of this id is known; the nearest is named.
            WrongKey: Its record was not written by a holder of the key.
        """
        fields, states, who = self.store.pipeline(
            [("HGETALL", job_key(job_id)), ("HGETALL", job_key(job_id, "tasks")), ("SMEMBERS", job_key(job_id, "who"))]
        )
        known = _pairs(fields)
        if "record" not in known:
            raise NoSuchJob(f"There is no job {job_id!r}, or no longer.", self._advice(job_id))
        record = Record(**json.loads(bytes(self.keys.unseal(job_key(job_id), known["record"]))))
        tasks = {name: self._task(name, _pairs(states).get(name)) for name in record.tasks}
        workers = tuple(sorted(member.decode() for member in who))
        return Job(record, tasks, "sent" in known, "cancelled" in known, workers)

    def _task(self, task_id: str, sealed: bytes | None) -> Task:
        if sealed is None:
            return Task()
        try:
            return Task(**json.loads(bytes(self.keys.unseal(f"state of {task_id}", sealed))))
        except WrongKey:
            return Task(error="its state in Redis does not open")

    def _advice(self, job_id: str) -> str:
        near = get_close_matches(job_id, self.ids(), n=1, cutoff=0.5)
        question = f"Did you mean {near[0]}? " if near else ""
        return (
            f"{question}A job is kept for {self.settings.keep:g} s after its last event.\nTo list them: producer jobs"
        )

    def begin(self, task_id: str, retries: int, run: str) -> Begun:
        """Note, in a worker, that a task begins.

        Args:
            task_id: The task.
            retries: Which try of it this is.
            run: Which run of this try, as ``new_run`` names it: noted again, it is still the same one.
        """
        job_id, who = job_of(task_id), run.partition(" ")[0]
        runs, handed = begun_keys(task_id, retries)
        keys = [job_key(job_id), runs, job_key(job_id, "who"), job_key(job_id, "tasks"), handed]
        replies = self.store.pipeline(
            [
                ("HGET", keys[0], "cancelled"),
                # not a number: a connection that breaks has this sent again, which must not count as another run
                ("SADD", runs, run),
                ("SADD", keys[2], who),
                ("PEXPIRE", JOBS, self._keep),
                *(("PEXPIRE", key, self._keep) for key in keys),
                ("SCARD", runs),
                ("SCARD", handed),
            ]
        )
        return Begun(replies[4] == 1, replies[0] is not None, int(replies[-2]), int(replies[-1]))

    def hand_over(self, task_id: str, retries: int, who: str) -> None:
        """Note that a worker which stops leaves a task to another."""
        runs, handed = begun_keys(task_id, retries)
        if its := [run for run in self.store.call("SMEMBERS", runs) if run.startswith(f"{who} ".encode())]:
            self.store.pipeline([("SADD", handed, *its), ("PEXPIRE", handed, self._keep)])

    def earlier(self, task_id: str, retries: int, run: str) -> list[tuple[str, bool]]:
        """Other runs of a try of a task: the host, and whether it was told to stop and left the task to another."""
        began, handed = self.store.pipeline([("SMEMBERS", key) for key in begun_keys(task_id, retries)])
        return sorted((other.decode().partition("/")[0], other in handed) for other in began if other != run.encode())

    def note(self, task_id: str, state: str, result: Any) -> None:
        """Note the state of a task, as Celery's result backend is told it; success is the last word."""
        task = Task(state, *_details(state, result))
        key, purpose = job_key(job_of(task_id), "tasks"), f"state of {task_id}"
        before = self.store.call("HGET", key, task_id)
        if before is None or self._task(task_id, before).state != "SUCCESS":
            sealed = self.keys.seal(purpose, json.dumps(asdict(task)).encode())
            self.store.pipeline([("HSET", key, task_id, sealed), ("PEXPIRE", key, self._keep)])


def _details(state: str, result: Any) -> tuple[str, str]:
    """Who works on it, and what went wrong."""
    if state == "STARTED" and isinstance(result, Mapping):
        return f"{str(result.get('hostname', '')).partition('@')[0]}/{result.get('pid')}", ""
    if state in ("FAILURE", "RETRY") and isinstance(result, Mapping):  # an exception as Celery encodes it
        message = result.get("exc_message")
        words = " ".join(map(str, message)) if isinstance(message, (list, tuple)) else str(message)
        return "", f"{result.get('exc_type')}: {words}".strip()
    return "", ""


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}
