"""A watcher: it looks at a fleet in Redis, with commands that only read, and costs nothing while nobody looks.

On Redis: the hosts and ``crosshost:busy`` (``lab.fleet.hosts``), whose members name the runs; of each run the sorted set
``processes``, and its set ``keys``, which names all else (``lab.store.run``), read with SSCAN a slice at a look; of what
is named there lengths, holders and waiters. No SCAN, no KEYS, no script: a user who may read and nothing else can look.

The looks are not atomic. What two looks have in common, by tickets that are used once, was so in between.
"""

from __future__ import annotations

from typing import Any

from lab.fleet import counts
from lab.fleet.engine import DEAD_KEY, PREFIX, PROCESS_QUEUE
from lab.fleet.hosts import BUSY, JOBS, HostInfo, list_hosts
from lab.settings import Settings
from lab.watching.program import Program
from lab.watching.reader import NotAllowed, Reader
from lab.watching.state import Fleet, Memory

MOST_RUNS = 100
"""Programs that are looked at; those beyond are as if they were not there."""

GAP = 5000
"""Milliseconds between two looks after which they are not of one watch."""

JOB_RECORDS = "crosshost:jobs"
JOB_QUEUES = ("jobs", "jobs.long")


class Watcher:
    """Looks at a fleet. What it saw before tells how long something has lasted.

    Args:
        reader: Redis.
        settings: The fleet's. With a key, the names of processes and functions can be read.
    """

    def __init__(self, reader: Reader, settings: Settings) -> None:
        self._reader, self._settings = reader, settings
        self._programs: dict[str, Program] = {}
        self._refused: set[str] = set()
        self._watched_from = self._looked_at = 0
        self._heads: dict[str, tuple[int, int]] = {}

    def look(self) -> Fleet:
        """What there is now.

        Raises:
            BrokerUnreachable: Redis does not answer.
        """
        (seconds, micros), busy = self._reader.pipeline([("TIME",), ("ZRANGEBYSCORE", BUSY, "-inf", "+inf")])
        now = int(seconds) * 1000 + int(micros) // 1000
        if now - self._looked_at > GAP:  # for what came in between, nobody knows when it did
            self._watched_from = now
        self._looked_at = now
        hosts: dict[str, dict[str, str]] = {}
        for member in busy:
            host, process, run = (*member.decode().split(" "), "", "")[:3]
            if run:
                hosts.setdefault(run, {})[process] = host
        for run_id in list(hosts)[:MOST_RUNS]:
            if run_id not in self._programs:
                self._programs[run_id] = Program(self._reader, self._settings, run_id)
        runs = []
        for run_id, program in list(self._programs.items()):
            run = program.look(now, hosts.get(run_id, {}))
            if run is None:
                del self._programs[run_id]
            else:
                runs.append(run)
        queues = [self._length(PREFIX + name) for name in JOB_QUEUES]
        hosts_now, job_hosts = list_hosts(self._reader), list_hosts(self._reader, JOBS)
        return Fleet(
            at=now,
            watched_from=self._watched_from,
            hosts=hosts_now,
            job_hosts=job_hosts,
            runs=runs,
            starting=self._length(PREFIX + PROCESS_QUEUE) or 0,
            dead_letters=self._length(DEAD_KEY),
            jobs=self._if_allowed("ZCARD", JOB_RECORDS),
            job_queues={name: length for name, length in zip(JOB_QUEUES, queues, strict=True) if length is not None},
            memory=self._memory(),
            queued_since=self._queued_since(now),
            counts=self._counts(hosts_now),
            job_counts=self._counts(job_hosts, JOBS),
        )

    def _counts(self, hosts: list[HostInfo], kind: str = "") -> dict[str, dict[str, list[int]]]:
        if "counts" not in self._refused:
            try:
                return counts.read(self._reader, [host.name for host in hosts], kind)
            except NotAllowed:
                self._refused.add("counts")
        return {}

    def _queued_since(self, now: int) -> dict[str, int]:
        """When the next message of each queue was first seen to be the next; of one that is empty, nothing."""
        before, self._heads = self._heads, {}
        for name in (PROCESS_QUEUE, *JOB_QUEUES):
            head = self._if_allowed("LINDEX", PREFIX + name, "-1")  # a message goes in on the left
            if head is not None:
                seen, since = before.get(name, (None, 0))
                self._heads[name] = (hash(head), since if seen == hash(head) else now)
        return {name: since for name, (_, since) in self._heads.items()}

    def _length(self, key: str) -> int | None:
        length: int | None = self._if_allowed("LLEN", key)
        return length

    def _memory(self) -> Memory | None:
        info = self._if_allowed("INFO", "memory")
        if info is None:
            return None
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        return Memory(int(fields["used_memory"]), int(fields["maxmemory"]))

    def _if_allowed(self, *command: Any) -> Any:
        """The reply to a command that this user of Redis may not be allowed; then None."""
        if " ".join(command) in self._refused:
            return None
        try:
            return self._reader.call(*command)
        except NotAllowed:
            self._refused.add(" ".join(command))
            return None
