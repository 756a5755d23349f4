"""What there is to see of a fleet at one moment. Times are milliseconds by Redis's clock; ``None`` is not known.

A *since* of a process is exact. Of what Redis keeps no time of (a lock that is held, a wait, an item at the head of a queue)
it is when a watcher saw it first, so it has lasted at least as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.fleet.hosts import HostInfo

FREE, HELD, WANTED = "free", "held", "wanted"
"""What becomes of a lock: held and nobody else wants it; held and somebody waits."""


@dataclass(frozen=True)
class Waiter:
    """A process that waits.

    Attributes:
        process: Its id.
        ticket: Names this wait, and no other.
        since: When it was first seen to wait.
    """

    process: str
    ticket: str
    since: int


@dataclass(frozen=True)
class Lock:
    """A lock, a semaphore, or a condition (whose waiters wait to be notified).

    Attributes:
        name: Its key without the run's part.
        kind: lock (recursive ones too), semaphore or condition.
        value: Places left; None of a condition.
        holder: Id of the process that holds it; empty if nobody does, or it is no lock.
        ticket: Names this hold, and no other.
        since: When it was first seen to be held by that.
        waiters: Who waits, in the order in which they get it.
    """

    name: str
    kind: str
    value: int | None
    holder: str
    ticket: str
    since: int | None
    waiters: list[Waiter]

    @property
    def state(self) -> str:
        """free, held or wanted."""
        return WANTED if self.waiters else HELD if self.value == 0 else FREE


@dataclass(frozen=True)
class Queue:
    """A queue, or what one end of a pipe has yet to receive.

    Attributes:
        name: Its key without the run's part.
        length: Messages in it.
        since: When its first message was first seen to be the first.
        senders: Who waits until there is room for another (``lab.store.backlog``).
    """

    name: str
    length: int
    since: int | None
    senders: list[Waiter] = field(default_factory=list)


@dataclass(frozen=True)
class Pool:
    """A pool.

    Attributes:
        name: Its key without the run's part.
        waiting: Calls that no worker has taken.
        taken: Calls that each worker has taken and not answered, by process.
        handed_out: Calls that were handed out since it was opened.
        rate: Calls handed out in a second; None at the first look.
        answers: Answers that the program has not read.
        put_back: Calls that were under a worker when it died, and were put back for another.
    """

    name: str
    waiting: int
    taken: dict[str, int]
    handed_out: int
    rate: float | None
    answers: int
    put_back: int = 0


@dataclass(frozen=True)
class Process:
    """A process of a run.

    Attributes:
        id: In its run; ``root`` is the program itself.
        name: As ``multiprocessing`` calls it; empty without the fleet's key.
        host: Its host; empty of the root, whose host is not of the fleet.
        pid: On its host, 0 if not known.
        parent: Id of its parent.
        since: When its host took it.
        lease: Seconds until it is taken for dead, unless it is heard before.
        silent: Seconds for which it has not been heard, if that is longer than half of a lease; else 0.
        doing: What it does, in words.
        on: The lock or pool that this is about; empty if there is none.
        call: Number of the pool's call that it is in.
        function: Which function that is; empty without the fleet's key.
        doing_since: When it was first seen to do that.
    """

    id: str
    name: str
    host: str
    pid: int
    parent: str
    since: int | None
    lease: float
    silent: float
    doing: str
    on: str = ""
    call: int | None = None
    function: str = ""
    doing_since: int | None = None


@dataclass(frozen=True)
class Run:
    """One program, with all that it shares.

    Attributes:
        id: Its name.
        processes: The root first, then by age.
        locks: Locks, semaphores and conditions that were used.
        queues: Queues and pipes.
        pools: Pools.
        complete: Whether all its keys were looked at; if not, there may be more locks, queues and pools.
    """

    id: str
    processes: list[Process]
    locks: list[Lock]
    queues: list[Queue]
    pools: list[Pool]
    complete: bool


@dataclass(frozen=True)
class Memory:
    """Redis's memory.

    Attributes:
        used: Bytes.
        ceiling: ``maxmemory``, 0 if there is none.
    """

    used: int
    ceiling: int


@dataclass(frozen=True)
class Fleet:
    """A fleet at one moment.

    Attributes:
        at: When.
        watched_from: Since when there was a look every few seconds. What was there then may have lasted longer than it says.
        hosts: Those that run processes.
        job_hosts: Those that work on jobs.
        runs: Programs that have processes on hosts.
        starting: Processes that no host has taken yet.
        dead_letters: Messages that no worker will run; None if this Redis user may not know.
        jobs: Jobs that have not expired.
        job_queues: Chunks of jobs that wait, by queue.
        queued_since: When the message that is the next in a queue of Celery's was first seen to be it, by queue.
        counts: What hosts have counted (``lab.fleet.counts``), by host.
        job_counts: The same of hosts for jobs.
        memory: Redis's, None if this Redis user may not ask.
    """

    at: int
    watched_from: int
    hosts: list[HostInfo]
    job_hosts: list[HostInfo]
    runs: list[Run]
    starting: int
    dead_letters: int | None
    jobs: int | None
    job_queues: dict[str, int] = field(default_factory=dict)
    memory: Memory | None = None
    queued_since: dict[str, int] = field(default_factory=dict)
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    job_counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def process(self, run: str, process: str) -> Process | None:
        """A process by the ids of its run and itself."""
        return next((p for r in self.runs if r.id == run for p in r.processes if p.id == process), None)
