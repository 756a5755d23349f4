"""``counter``: a number in Redis that tasks on several hosts add to.

On Redis: ``crosshost:job:ID:cell:MODE`` (the number), and with ``:marks`` (set of the additions that have counted) and
``:lock`` (string, with a lease) after it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import redis
from celery import shared_task

from lab.jobs import counter
from lab.jobs.records import job_key, job_of
from worker.jobs.task import JobTask

LEASE = 10.0
"""Seconds after which the lock of a dead worker is free."""

# Excluded: a holder that was away for longer than its lease, and writes when the lock is another's.
_SET_ONCE = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return redis.error_reply('LOCKLOST') end
if redis.call('SADD', KEYS[2], ARGV[2]) == 1 then redis.call('SET', KEYS[1], ARGV[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4]) redis.call('PEXPIRE', KEYS[2], ARGV[4])"""

# Excluded: a worker that dies between the addition and its mark, or another that adds in between.
_ADD_ONCE = """
if redis.call('SADD', KEYS[2], ARGV[1]) == 1 then redis.call('INCR', KEYS[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2]) redis.call('PEXPIRE', KEYS[2], ARGV[2])"""


class RedisCell:
    """A cell in Redis.

    Args:
        client: redis-py's.
        key: Where the number is.
        keep: Milliseconds that it is kept.
    """

    def __init__(self, client: Any, key: str, keep: int) -> None:
        self._client, self._key, self._keep = client, key, keep
        self._marks = f"{key}:marks"
        # A lock of redis-py is a key with a random token in it; waiting for it is asking again.
        self._lock = client.lock(f"{key}:lock", timeout=LEASE, sleep=0.005, blocking_timeout=60)

    def get(self) -> int:
        """Read it."""
        return int(self._client.get(self._key) or 0)

    def set(self, value: int) -> None:
        """Write it."""
        self._client.set(self._key, value, px=self._keep)

    def lock(self) -> AbstractContextManager[Any]:
        """The lock, to enter."""
        lock: AbstractContextManager[Any] = self._lock
        return lock

    def set_once(self, value: int, mark: str) -> None:
        """Write it with its mark, if this holder still has the lock."""
        keys = (self._key, self._marks, f"{self._key}:lock")
        self._client.eval(_SET_ONCE, len(keys), *keys, self._lock.local.token, mark, value, self._keep)

    def add_once(self, mark: str) -> None:
        """Add one with its mark."""
        self._client.eval(_ADD_ONCE, 2, self._key, self._marks, mark, self._keep)


def _cell(task: Any, mode: str) -> RedisCell:
    key = job_key(job_of(task.request.id), "cell", mode)
    return RedisCell(task.backend.client, key, int(task.app.settings.keep * 1000))


@shared_task(
    base=JobTask,
    name="jobs.counter.add",
    bind=True,
    autoretry_for=(redis.ConnectionError, redis.TimeoutError),  # its marks make another try safe
    retry_backoff=True,
)
def add(self: Any, mode: str, adder: int, times: int) -> int:
    """One adder."""
    return counter.add(_cell(self, mode), mode, adder, times)


@shared_task(base=JobTask, name="jobs.counter.read", bind=True)
def read(self: Any, added: list[int]) -> dict[str, int]:
    """What the three numbers are when all adders are done."""
    values = {mode: _cell(self, mode).get() for mode in counter.MODES}
    return {**values, "expected": sum(added) // len(counter.MODES)}
