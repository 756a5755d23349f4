"""The queue of a pool's calls and answers, on the side of the pool: what it has sent and nobody has answered yet."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import context
from typing import Any

from lab import buffers
from lab.cluster.failure import unloadable
from lab.cluster.pool.room import MOST_BYTES, Room
from lab.cluster.pool.taken import (
    DIVIDED,
    MARK,
    NUMBER,
    RESULT,
    SEND_BYTES,
    SENTINEL,
    SentAnswers,
    TakenCalls,
)
from lab.errors import CallEnded, KeyLost, LabError, WrongKey
from lab.program import datafile
from lab.sharing import Shared, keeping
from lab.store.backlog import Backlog
from lab.store.claimcheck import DISCARD, SWEEP, check_in, check_out, luggage_of, sealed
from lab.store.run import Run
from lab.store.script import PUSH, Script
from lab.store.store import GRACE
from lab.store.wire import HEAD_SIZE, KIND_AT, MANY, PLAIN, is_ticket

MAX_DEATHS = 3
"""Processes that die under a call before it is given up."""
MAX_LOSSES = 12
"""The same for processes that were lost with their hosts, which is hardly the call's doing: four count as one."""
SEND_AT_ONCE = 200
ALONE_SECONDS = 0.0002
NAMES = ("seen", "calls", "results", "parked", "deaths", "tries", "ended")

OPEN = Script("""
redis.call('SETBIT', KEYS[3], 0, 0)  -- from now on it is there, with an expiry
for i = 3, #KEYS do create(KEYS[i]) end
return 1
""")

RECOVER = Script(
    MARK
    + f"""
local function many(blob) return string.byte(blob, {KIND_AT}) == {MANY >> 8} end
"""
    + """
local calls, taken, seen, deaths, results, late, tries = unpack(KEYS, 3)
local given_up, ready = -1, redis.call('SISMEMBER', registry, taken)
-- what a process that was ended has moved to its list meanwhile, it has not begun
local ended = redis.call('SISMEMBER', string.sub(calls, 1, -6) .. 'ended', string.match(taken, '[^:]+$')) == 1
local overdue = ARGV[5] == '1' and tonumber(redis.call('HGET', late, 'number') or -1)
while true do
  local blob = redis.call('RPOP', taken)
  if not blob then break end
  local n, put_back = number(blob) or -1, true
  if n == overdue then                       -- its time was up; it was alone, see LAST_WORDS
    local answer, attempts, retries = unpack(redis.call('HMGET', late, 'answer', 'attempts', 'retries'))
    put_back = tonumber(attempts) <= tonumber(retries)
    if put_back then redis.call('HSET', tries, n, attempts) else push(results, answer) end
  elseif redis.call('LLEN', taken) == 0 and not ended then -- the first of the list is the one that was running
    -- Many are given up at once, and each is tried by itself: the one that killed it must not be run with the others again.
    put_back = not many(blob) and redis.call('HINCRBY', deaths, n, ARGV[3]) < tonumber(ARGV[4])
    if put_back then redis.call('HINCRBY', deaths, 'put back', 1) else given_up = n end
  end
  if put_back then
    mark(seen, n, 0)
    redis.call('LPUSH', calls, blob)
  end
end
keep(calls)
keep(deaths)
keep(tries)
return {given_up, ready}
"""
)

COUNT = Script(
    """
local calls, results, children = KEYS[3], KEYS[4], KEYS[5]
if redis.call('LLEN', results) > 0 then return -1 end  -- who asks has these to read first
local total, counted = redis.call('LLEN', calls), {}
local pool, workers = string.sub(calls, 1, -6), redis.call('SMEMBERS', children)
for i = 3, #ARGV do workers[#workers + 1] = ARGV[i] end
for _, worker in ipairs(workers) do
  if not counted[worker] then total = total + redis.call('LLEN', pool .. 'taken:' .. worker) end
  counted[worker] = true
end
return total
""",
    numbered=False,
)
"""How many calls lie in the pool's list and in those of its workers."""

NUMBERS = Script(
    MARK
    + """
local calls, results, children = KEYS[3], KEYS[4], KEYS[5]
if redis.call('LLEN', results) > 0 then return -1 end
local numbers, pool, workers = {}, string.sub(calls, 1, -6), redis.call('SMEMBERS', children)
for i = 3, #ARGV do workers[#workers + 1] = ARGV[i] end
local lists = {calls}
for _, worker in ipairs(workers) do lists[#lists + 1] = pool .. 'taken:' .. worker end
for _, list in ipairs(lists) do
  for _, blob in ipairs(redis.call('LRANGE', list, 0, -1)) do numbers[#numbers + 1] = number(blob) or -1 end
end
return numbers
""",
    numbered=False,
)
"""Which ones. It takes long for many, and is run where some are missing."""

LOOK, LOOK_CLOSER = 5.0, 1.0
"""Seconds between two looks whether what waits is still there, and between the first that misses something and the second."""

DROP = Script("redis.call('UNLINK', KEYS[3]) return 1")

FORGET_TAKEN = Script("local n = redis.call('LLEN', KEYS[3]) redis.call('UNLINK', KEYS[3]) return n")
"""Whether a worker has taken calls, which nobody puts back any more when it ends."""


class Many(tuple[Any, ...]):
    """A task that is many calls, which whoever has put it tries one by one when it is given up, as by its first death."""

    __slots__ = ()


class Calls:
    """The queue of tasks, on the side of the pool; pickled, it becomes ``TakenCalls``."""

    def __init__(self, run: Run, name: str, workers: int) -> None:
        self.run, self.name, self.workers = run, name, workers
        self.pending: dict[int, tuple[int, int, int]] = {}  # job, index and bytes, by number
        self.room = Room(workers)
        self._luggage: dict[int, str] = {}  # where the large ones of those that are pending lie
        self._shared: dict[
            int, list[Shared[Any]]
        ] = {}  # what they refer to, which must not go before they are answered
        self._numbers = itertools.count()
        self._buffer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._gate, self._feeding = threading.Lock(), threading.Lock()
        self.ended = (-1, CallEnded(""))
        self._feeder: threading.Thread | None = None
        self._sent = 0
        self._last_put = 0.0
        self._packer = buffers.Packer()
        self._broken: LabError | None = None
        self._look_at = 0.0
        self._missing: set[int] = set()
        self.on_broken: Callable[[LabError], None] = lambda _: None
        run.post(OPEN, list(map(self.key, NAMES)))

    def key(self, *names: str) -> str:
        """A key of this pool."""
        return ":".join((self.name, *names))

    def put(self, task: Any) -> None:
        """Append a task when there is room for it, or None to end a worker; the feeder sends."""
        if self._broken is not None and task is None:
            return  # there is no worker left to end, or no way to tell it
        with keeping() as shared:
            parts = self._packer.dumps(task)
        size = buffers.size(parts)
        if task is not None:
            self.room.wait(MOST_BYTES)
        with self._gate:
            self._put(task, parts, size, shared)

    def _put(self, task: Any, parts: list[Any], size: int, shared: list[Shared[Any]]) -> None:
        if task is not None and task[0] <= self.ended[0]:
            raise self.ended[1]
        n = next(self._numbers)
        if task is not None:
            self.room.enter(size)
            if shared:
                self._shared[n] = shared
            self.pending[n] = (*task[:2], size)
            # Excluded: a call that begins to wait just after all that wait have failed. Whoever takes it from ``pending``
            # tells its caller.
            if self._broken is not None:
                if self.end(n) is not None:
                    raise self._broken
                return
        message = check_in(self.run, *parts)
        if luggage := luggage_of(message):
            self._luggage[n] = luggage
        kind = MANY if isinstance(task, Many) else PLAIN
        blob = sealed(self.run, self.key("calls"), message, NUMBER.pack(n), kind)
        before, self._last_put = self._last_put, time.perf_counter()
        alone = self._last_put - before > ALONE_SECONDS or size > SEND_BYTES
        if self._sent == n and (alone or not self._has_feeder()):
            # A call that comes alone, or is large, is sent here and now; small ones in a burst are gathered by the feeder.
            # Excluded, by the count: overtaking a call that the feeder has yet to send.
            self._sent += 1
            self.run.post(PUSH, [self.key("calls")], blob)
            return
        self._has_feeder()
        self._buffer.put((n if task is not None else SENTINEL, blob))

    def _has_feeder(self) -> bool:
        """Whether there is a feeder; starts it, unless the interpreter is ending and starts no more threads."""
        if self._feeder is None:
            feeder = threading.Thread(target=self._feed, name="crosshost-pool-feeder", daemon=True)
            with suppress(RuntimeError):
                feeder.start()
                self._feeder = feeder
        return self._feeder is not None

    def _feed(self) -> None:
        """Send what has gathered while the last batch was sent."""
        while (item := self._buffer.get()) is not None:
            items = [item]
            while len(items) < SEND_AT_ONCE and not self._buffer.empty() and (item := self._buffer.get()) is not None:
                items.append(item)
            try:
                with self._feeding:
                    blobs = [blob for n, blob in items if n == SENTINEL or n in self.pending]
                    if blobs:
                        self.run.post(PUSH, [self.key("calls")], *blobs)
            except LabError as exc:
                self.on_broken(exc)  # whoever reads the answers may just have found Redis again
                return
            self._sent += len(items)
            if item is None:
                return

    def end(self, n: int) -> tuple[int, int] | None:
        """Take a call off those that are pending, once; its job and index."""
        if luggage := self._luggage.pop(n, None):
            self.quietly(DISCARD, [luggage])
        self._shared.pop(n, None)
        job, index, size = self.pending.pop(n, (None, 0, 0))
        if job is None:
            return None
        self.room.leave(size)
        return job, index

    def divided(self, n: int, luggage: str) -> int | None:
        """A call that was many is one from now on, and may lie elsewhere; its job, if it is pending."""
        pending = self.pending.get(n)
        stale = luggage if pending is None else self._luggage.pop(n, "")
        if stale:
            self.quietly(DISCARD, [stale])
        if pending is None:
            return None
        if luggage:
            self._luggage[n] = luggage
        return pending[0]

    def numbers(self, job: int) -> list[int]:
        """The calls of a job that are not answered."""
        return [n for n, (of, _, _) in list(self.pending.items()) if of == job]

    def sent(self, n: int) -> bool:
        """Whether a call has been sent."""
        return n < self._sent

    def check(self) -> None:
        """Raise the error that ended the pool, if one did."""
        if self._broken is not None:
            raise self._broken

    def held_by(self, worker: str) -> set[int]:
        """The numbers of the calls that a worker has taken and not answered."""
        taken = self.run.store.call("LRANGE", self.key("taken", worker), 0, -1)
        return {NUMBER.unpack_from(blob, HEAD_SIZE)[0] for blob in taken}

    def recover(self, worker: str, host_lost: bool, overdue: bool) -> tuple[tuple[int, int] | None, bool]:
        """Put back what a dead worker had taken; the call that was given up, if any, and whether it had begun to work.

        Args:
            worker: The process.
            host_lost: Whether it ended with its host.
            overdue: Whether its alarm ended it, so that its call is answered with what it laid down for that.
        """
        taken, late = self.key("taken", worker), self.key("late", worker)
        keys = [self.key("calls"), taken, *map(self.key, ("seen", "deaths", "results")), late, self.key("tries")]
        blame = 1 if host_lost else MAX_LOSSES // MAX_DEATHS
        given_up, ready = self.run.eval(RECOVER, keys, blame, MAX_LOSSES, int(overdue))
        self.run.post(DISCARD, [taken, late])
        return self.end(given_up), bool(ready)

    def until_look(self) -> float:
        """Seconds until it is time to look again; those who wait for an answer wait no longer."""
        return min(LOOK, max(0.1, self._look_at - time.monotonic()))

    def lost(self, workers: Callable[[], list[str]]) -> set[int]:
        """The calls that are nowhere any more, as somebody has deleted what they lay in; asks when it is time.

        To be called by who reads the answers, when all that were received are dealt with. A call is sent, and lies in the
        pool's list, in one of a worker's, or among the answers; it goes from one to the next in one step. So it is lost if
        it is in none of them. Excluded, by asking twice: one that is given up just now, or on its way to Redis.

        Args:
            workers: Tells the processes that may have taken some, besides the children of this process.
        """
        if time.monotonic() < self._look_at:
            return set()
        self._look_at = time.monotonic() + LOOK
        sent = {n for n in list(self.pending) if n < self._sent}
        keys = [self.key("calls"), self.key("results"), self.run.key("children", self.run.me)]
        if not sent or not 0 <= self.run.eval(COUNT, keys, *workers()) < len(sent):
            self._missing = set()
            return set()
        numbers = self.run.eval(NUMBERS, keys, *workers())
        if numbers == -1:
            return set()
        before, self._missing = self._missing, sent.difference(numbers)
        self._look_at = time.monotonic() + LOOK_CLOSER
        return before & self._missing

    def drop(self) -> None:
        """Forget every task that no worker has taken, and wait for none any more."""
        self.room.close()
        with suppress(queue.Empty):
            while True:
                self._buffer.get_nowait()
        self.quietly(DROP, [self.key("calls")])

    def withdraw(self, upto: int, exc: CallEnded, workers: list[str]) -> tuple[list[tuple[int, int]], list[str]]:
        """Forget every call of the jobs up to one, sent or yet to be put.

        Excluded, by the gates: a call on its way to Redis meanwhile. And by dropping the list first: a worker that takes one
        between two looks.

        Args:
            upto: The last of those jobs.
            exc: What becomes of a call of theirs that is put later.
            workers: Who may have taken some.

        Returns:
            Job and index of those calls, and the workers that had taken some.
        """
        with self._gate, self._feeding:
            self.ended = upto, exc
            ended = [call for n in list(self.pending) if (call := self.end(n)) is not None]
            self.run.eval(DROP, [self.key("calls")])
            busy = [worker for worker in workers if self.run.eval(FORGET_TAKEN, [self.key("taken", worker)])]
        return ended, busy

    def discard(self, workers: list[str]) -> None:
        """Delete the pool's keys, and end the feeder."""
        self._buffer.put(None)
        if self._feeder is not None:
            self._feeder.join(GRACE)
        keys = [*map(self.key, NAMES), *(self.key(part, worker) for part in ("taken", "late") for worker in workers)]
        self.quietly(SWEEP, [self.key("results")])
        room = self.key("results", "room")
        self.quietly(DISCARD, [*keys, room, f"{room}:waiters", *self._luggage.values()])

    def quietly(self, script: Script, keys: list[str], *args: Any) -> None:
        """Tell Redis, if it is still there; if not, the keys expire."""
        try:
            self.run.post(script, keys, *args)
        except LabError:
            return

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return TakenCalls, (self.name, self.workers)


class Answers:
    """The queue of results, on the side of the pool; pickled, it becomes ``SentAnswers``."""

    def __init__(
        self,
        calls: Calls,
        settle: Callable[[int, int, tuple[bool, Any]], None],
        workers: Callable[[], list[str]],
    ) -> None:
        self._calls, self._settle, self._workers = calls, settle, workers
        self._ready: deque[Any] = deque()
        self._unread = Backlog(calls.run, calls.key("results"))
        calls.on_broken = self.fail_pending

    def put(self, sentinel: None) -> None:
        """Wake the thread that reads: the pool puts nothing but None here."""
        key = self._calls.key("results")
        message = self._calls.run.seal(key, RESULT.pack(SENTINEL, 0))
        self._calls.quietly(PUSH, [key], message)  # were Redis gone, the thread would find that out by itself

    def get(self) -> Any:
        """The next result as (job, index, (success, value)), or None.

        Raises:
            BrokerUnreachable: Redis is gone; every pending call has failed with the same error.
        """
        while not self._ready:
            try:
                try:
                    self._receive()
                    self._miss()
                except KeyLost as exc:
                    self._calls.run.put_right(exc)
            except LabError as exc:
                self.fail_pending(exc)
                raise
        return self._ready.popleft()

    def _receive(self) -> None:
        run, key = self._calls.run, self._calls.key("results")
        for blob in run.take(key, self._calls.until_look(), 16, self._unread.before_take()):
            try:
                payload = run.unseal(key, blob)
                payload = check_out(run, blob) if is_ticket(blob) else payload
                self._unread.took(len(payload))
                self._unpack(payload)
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)

    def _miss(self) -> None:
        """End the calls that are lost with an error: whoever waits for one does not wait for ever."""
        calls = self._calls
        for n in calls.lost(self._workers):
            if (call := calls.end(n)) is not None:
                error = KeyLost.gone(calls.key("calls"), "a call, or its answer, that nobody had read yet")
                self._settle(*call, (False, error))

    def _unpack(self, payload: memoryview) -> None:
        at = 0
        while at < len(payload):
            n, size = RESULT.unpack_from(payload, at)
            at += RESULT.size
            if n == SENTINEL:
                self._ready.append(None)
            elif n & DIVIDED:
                _, (answer, luggage) = _load_outcome(payload[at : at + size], at)
                if (job := self._calls.divided(n ^ DIVIDED, luggage)) is not None:
                    self._ready.append((job, DIVIDED, (True, answer)))
            # Excluded: counting a result twice, when a call was put back although its worker had answered.
            elif (call := self._calls.end(n)) is not None:
                self._ready.append((*call, _load_outcome(payload[at : at + size], at)))
            at += size

    def fail_pending(self, exc: LabError) -> None:
        """End every call that waits, and every later one, with an error."""
        self._calls._broken = exc
        for n in list(self._calls.pending):
            if (call := self._calls.end(n)) is not None:  # two threads may do this at once
                self._settle(*call, (False, exc))

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return SentAnswers, (self._calls,)


def _load_outcome(packed: memoryview, at: int) -> tuple[bool, Any]:
    try:
        success, value = buffers.loads(packed, at)
    except BaseException as exc:  # noqa: BLE001 - whatever unpickling raises, SystemExit too, belongs to this one call
        return (False, unloadable(exc))
    if not success:
        datafile.explain(value)
    return success, value
