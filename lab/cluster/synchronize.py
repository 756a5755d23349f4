"""Lock, RLock, Semaphore, BoundedSemaphore, Condition, Event and Barrier, all from one semaphore in Redis.

``multiprocessing.synchronize`` builds everything from one primitive of the operating system, ``_multiprocessing.SemLock``.
Here the primitive is ``SemLock`` below, and the classes are the stdlib's with the primitive replaced.

A place that is given back goes straight to the longest waiting process, inside the script that gives it back. So nobody
polls, nobody overtakes, and there is no moment in which the lock is free while somebody waits for it.

Who waits has a *ticket* in the list of waiters, used once. Whoever takes it out of there lays a token into the ticket's own
list, on which the waiter blocks. If the reply with the token is lost, the list of waiters tells the same: a ticket that is in
it no more was taken out.

On Redis: hash ``sem:ID`` (value, holder), list ``sem:ID:waiters``, and one list ``wake:TICKET`` for each waiter, on
which it blocks with BLPOP.

Differs from multiprocessing: a Lock or RLock whose holder was killed, failed, or was lost with its host is free again; if it
ended well, the lock stays locked, as in multiprocessing. A process that was taken for dead cannot release, and what it writes
is refused (LeaseLost): every process has an id that is never used again, and the scripts that write check that it is still
among the living. This is what a fencing token is for (Kleppmann, "How to do distributed locking", 2016). A place in a
Semaphore has no owner, so it is not given back by a death.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import context, synchronize
from typing import Any

import redis

from lab.cluster.foresight import Foresight
from lab.errors import KeyLost, LabError, LeaseLost
from lab.fleet.counts import COUNTER
from lab.store import run as runs
from lab.store.run import Run
from lab.store.script import Script

RECURSIVE_MUTEX, SEMAPHORE = synchronize.RECURSIVE_MUTEX, synchronize.SEMAPHORE  # type: ignore[attr-defined]
SEM_VALUE_MAX: int = synchronize.SEM_VALUE_MAX  # type: ignore[attr-defined]

_VALUE = """
local sem = KEYS[3]
local value = tonumber(redis.call('HGET', sem, 'value'))
if not value then
  value = tonumber(ARGV[3])
  redis.call('HSET', sem, 'value', value)
  create(sem)
  if ARGV[4] == '1' then redis.call('ZADD', base .. 'locks', 0, sem) create(base .. 'locks') end
end
"""

ACQUIRE = Script(
    _VALUE
    + """
local ticket, waits, blocked = ARGV[5], ARGV[6] == '1', ARGV[7] == '1'
if value > 0 then
  redis.call('HSET', sem, 'value', value - 1, 'holder', ticket)
  if blocked then push(base .. 'wake:' .. ticket, 'free') end
  return 1
end
if waits and redis.call('RPUSH', sem .. ':waiters', ticket) == 1 then create(sem .. ':waiters') end
return blocked and 1 or 0
""",
    fenced=True,
)

_RELEASE = """
if value >= tonumber(ARGV[5]) then return redis.error_reply('TOOMANY') end
if not grant(sem) then redis.call('HSET', sem, 'value', value + 1, 'holder', '') end
"""
RELEASE = Script(f"{_VALUE}{_RELEASE}return 1", fenced=True)

STEP_ASIDE = Script(
    f"{_VALUE}{_RELEASE}if redis.call('RPUSH', KEYS[4], ARGV[6]) == 1 then create(KEYS[4]) end return 1", fenced=True
)
"""Give a place back, and get in line to be notified."""

WITHDRAW = Script(
    """
if redis.call('LREM', KEYS[3], 1, ARGV[3]) == 1 then return 0 end
redis.call('DEL', base .. 'wake:' .. ARGV[3])
-- who has a holder tells whether it is this ticket, even one that was never handed in
if KEYS[4] and redis.call('HGET', KEYS[4], 'holder') ~= ARGV[3] then return 0 end
return 1
""",
    fenced=True,  # the tickets of the dead are thrown away: that theirs is gone does not say that it was called up
)
"""Take a ticket back; 1 if it was too late for that, as it was called up."""

_IN_LINE = """
local wake, ticket = KEYS[3], ARGV[3]
local in_line = false
for i = 4, #KEYS do
  for _, waiter in ipairs(redis.call('LRANGE', KEYS[i], 0, -1)) do in_line = in_line or waiter == ticket end
end
"""

IN_LINE = Script(f"{_IN_LINE}return in_line", fenced=True, numbered=False)
"""Whether a ticket stands in one of some lists; fenced as WITHDRAW is."""

LAY_AGAIN = Script(
    f"{_IN_LINE}if not in_line and redis.call('EXISTS', wake) == 0 then push(wake, 1) end", fenced=True, numbered=False
)
"""Lay down a token for a ticket that is in line no more, unless one is there."""

STILL_WAITS = Script(
    _IN_LINE
    + """
local sem, owned, missing = ARGV[4], ARGV[5] == '1', ''
if redis.call('EXISTS', wake) == 1 then return '' end
if not in_line and owned and redis.call('HGET', sem, 'holder') == ticket then push(wake, 1) return '' end
if not in_line then return KEYS[4] end
if sem ~= '' and redis.call('HEXISTS', sem, 'value') == 0 then missing = sem end
if owned and not redis.call('ZSCORE', base .. 'locks', sem) then missing = base .. 'locks' end
for i = 4, missing ~= '' and #KEYS or 0 do  -- excluded: a place for who has been told an error
  redis.call('LREM', KEYS[i], 1, ticket)
end
return missing
""",
    fenced=True,
    numbered=False,
)
"""What is missing of that which a waiter with a ticket needs to be called up ever; nothing if it is still in line.

Asked by who waits, when it has waited for a while and no token has come."""

COME_BACK = Script(
    f"""
if redis.call('LREM', KEYS[4], 1, ARGV[3]) == 1 then return 0 end
{_IN_LINE}
local sem, owned, doubt = ARGV[4], ARGV[5] == '1', ARGV[6] == '1'
if in_line or redis.call('EXISTS', wake) == 1 then return 1 end
if doubt or (owned and redis.call('HGET', sem, 'holder') == ticket) then push(wake, 1) return 1 end
return 0
""",
    fenced=True,
)
"""Be notified no more; 0 if that was in time, else the place will be handed over, or was.

In doubt, a ticket that is nowhere was never handed in, or its place was handed over and the token lost: it has a place."""

NOTIFY = Script(
    """
local sem, left = KEYS[3], tonumber(ARGV[3])
while left > 0 do
  local waiter = next_waiter(KEYS[4])
  if not waiter then break end
  if redis.call('RPUSH', sem .. ':waiters', waiter) == 1 then create(sem .. ':waiters') end
  left = left - 1
end
-- who notifies holds the lock, so whoever was called up gets it later; but a semaphore in its stead may have more places
while tonumber(redis.call('HGET', sem, 'value') or 0) > 0 and grant(sem) do redis.call('HINCRBY', sem, 'value', -1) end
return 1
""",
    fenced=True,
)

SET = Script(
    """
redis.call('HSET', KEYS[3], 'value', 1)
create(KEYS[3])
while true do
  local waiter = next_waiter(KEYS[4])
  if not waiter then return 1 end
  push(base .. 'wake:' .. waiter, 1)
end
""",
    fenced=True,
)
"""Set an event, and wake who waits for it."""

CLEAR = Script("redis.call('HSET', KEYS[3], 'value', 0) create(KEYS[3]) return 1", fenced=True)

AWAIT = Script(
    """
if tonumber(redis.call('HGET', KEYS[3], 'value') or 0) > 0 then return 1 end
if redis.call('RPUSH', KEYS[4], ARGV[3]) == 1 then create(KEYS[4]) end
return 0
""",
    fenced=True,
)
"""Whether an event is set; if not, a ticket gets in line."""

VALUE = Script("return redis.call('HGET', KEYS[3], 'value') or ARGV[3]", numbered=False)

FREE = b"free"
"""The token of a place that was not waited for."""


class SemLock:
    """A counting semaphore or a recursive mutex, with the methods of ``_multiprocessing.SemLock``.

    Args:
        key: Its key in Redis; nothing is written there before the first acquire or release.
        kind: ``SEMAPHORE`` or ``RECURSIVE_MUTEX``.
        initial: Its first value.
        maxvalue: The value that ``release`` must not exceed.
        owned: Whether a place belongs to the process that took it, and is free again when that process dies.
    """

    def __init__(self, run: Run, key: str, kind: int, initial: int, maxvalue: int, owned: bool) -> None:
        self.run, self.name, self.kind, self.initial, self.maxvalue, self.owned = (
            run,
            key,
            kind,
            initial,
            maxvalue,
            owned,
        )
        self.handle = 0
        self._holds = 0  # taken minus released by this object, as in the C class
        self.takes = 0  # times that this object took it: what was read since is still true, if the lock guards it
        self._owner = 0
        self._crowded = False  # whether it had to be waited for, the last time
        self._foresight = Foresight(run)

    def state(self) -> tuple[Any, ...]:
        """What another process needs to use the same semaphore."""
        return (self.name, self.kind, self.initial, self.maxvalue, self.owned)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a place, waiting for one if asked to; whether it was taken."""
        if self.kind == RECURSIVE_MUTEX and self._is_mine():
            self._holds += 1
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = bool(block) and (timeout is None or timeout > 0)
        if not self._take(self.run.new_ticket(), wait, deadline):
            return False
        self._has_taken()
        return True

    def _has_taken(self) -> None:
        self._holds += 1
        self.takes += 1
        self._owner = threading.get_ident()

    def _take(self, ticket: str, wait: bool, deadline: float | None) -> bool:
        """Ask, and wait if need be; both in one round trip if it had to be waited for the last time."""
        blocked = wait and self._crowded
        reads, mark = self._foresight.commands(), self.run.store.mark
        ask = self.run.command(ACQUIRE, [self.name], self.initial, int(self.owned), ticket, int(wait), int(blocked))
        known = False  # whether Redis surely has the ticket
        try:
            if not blocked:
                got, *data = self.run.store.call_and_read(ask, reads)
                if got:
                    self._foresight.came(data, mark.after(1 + len(reads)))
                    return True
                if not wait:
                    return False
                known = True
            timeout = None if deadline is None else deadline - time.monotonic()
            place, begun, before = (self.name, self.owned), time.perf_counter(), [ask] if blocked else []
            token, *data = _called_up(self.run, [self._waiters], ticket, timeout, before, place, reads)
            if token != FREE:
                COUNTER.waited(time.perf_counter() - begun)
            if token:
                self._foresight.came(data, mark.after(*((0, 1) if blocked else (1 + len(reads), 2))))
                # Only where the holder is on record can a ticket be withdrawn that may never have been handed in.
                self._crowded = self.owned and token != FREE
                return True
        except LabError:
            raise
        except BaseException:
            # Excluded: being handed the place before the interruption or after it, and keeping it for ever. (Where Redis is
            # away, it is kept until the process ends: whoever interrupts a wait for Redis is not kept waiting for it here.)
            if (known or self.owned) and self.run.store.end_wait(patiently=False):
                with suppress(LabError):
                    if self._withdraw(ticket):
                        self._give_back()
            raise
        # Excluded: the same between the timeout and the withdrawal. Then it is ours, if late.
        return self._withdraw(ticket)

    def release(self) -> None:
        """Give a place back.

        Raises:
            ValueError: There is nothing to give back.
            AssertionError: A recursive mutex belongs to another thread.
            LeaseLost: This process was taken for dead meanwhile.
        """
        if self.kind == RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._holds > 1:
                self._holds -= 1
                return
        # Before the release: after it another thread of this process may hold the lock and count for itself.
        self._holds -= 1
        try:
            self._give_back()
        except redis.ResponseError as exc:
            self._holds += 1
            if "TOOMANY" in str(exc):
                raise ValueError("semaphore or lock released too many times") from None
            raise

    def _give_back(self) -> None:
        self.run.eval(RELEASE, [self.name], self.initial, int(self.owned), self.maxvalue)

    def step_aside(self, waiters: str, timeout: float | None) -> bool:
        """Give a place back, wait to be notified in a list of waiters, and have a place again; whether we were in time."""
        ticket, handed_in, come = self.run.new_ticket(), False, True
        self._holds -= 1
        try:
            mine = (self.initial, int(self.owned), self.maxvalue)
            self.run.eval(STEP_ASIDE, [self.name, waiters], *mine, ticket)
            handed_in = True
            if not self._notified(waiters, ticket, timeout):
                come = self._come_back(waiters, ticket, doubt=False)
        except BaseException as exc:
            # Excluded: a place that is handed to a ticket for which nobody waits any more, and kept for ever.
            with suppress(LabError):
                interrupted = not isinstance(exc, LabError)
                if not interrupted or self.run.store.end_wait(patiently=True):
                    doubt = not handed_in or (interrupted and not self.owned)
                    self._be_back(self._come_back(waiters, ticket, doubt))
            raise
        self._be_back(come)
        return come

    def _notified(self, waiters: str, ticket: str, timeout: float | None) -> bool:
        reads, mark, place = self._foresight.commands(), self.run.store.mark, (self.name, self.owned)
        token, *data = _called_up(self.run, [waiters, self._waiters], ticket, timeout, (), place, reads)
        if token:
            self._foresight.came(data, mark.after(0))
        return bool(token)

    def _come_back(self, waiters: str, ticket: str, doubt: bool) -> bool:
        """Be notified no more; if it is too late for that, wait for the place, and True."""
        keys = [self.run.key("wake", ticket), waiters, self._waiters]
        late = bool(self.run.eval(COME_BACK, keys, ticket, self.name, int(self.owned), int(doubt)))
        return late and self._notified(waiters, ticket, None)

    def _be_back(self, has_place: bool) -> None:
        if has_place or self._take(self.run.new_ticket(), True, None):
            self._has_taken()

    @property
    def _waiters(self) -> str:
        return f"{self.name}:waiters"

    def _withdraw(self, ticket: str) -> bool:
        return bool(self.run.eval(WITHDRAW, [self._waiters, *([self.name] if self.owned else [])], ticket))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *args: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._holds

    def _is_mine(self) -> bool:
        return self._holds > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        return int(self.run.eval(VALUE, [self.name], self.initial))

    def _is_zero(self) -> bool:
        return self._get_value() == 0


def _called_up(
    run: Run,
    lines: list[str],
    ticket: str,
    timeout: float | None,
    before: Sequence[tuple[Any, ...]] = (),
    place: tuple[str, bool] = ("", False),
    reads: Sequence[tuple[Any, ...]] = (),
) -> list[Any]:
    """Wait until somebody takes a ticket out of line, and lays a token down for it.

    Args:
        run: Of whoever waits.
        lines: The lists of waiters in one of which it stands until then.
        ticket: In one of them, or laid there by ``before``.
        timeout: Seconds; None for as long as it takes.
        before: Numbered commands for Redis to run first, in the same round trip.
        place: The semaphore that it is for, if it is for one, and whether Redis knows who holds that.
        reads: Commands for Redis to run as soon as the token is taken, in the same round trip.

    Returns:
        The token, empty if there was none in time; and the replies to ``reads``, if none was lost.

    Raises:
        KeyLost: The ticket, or what it is for, is not in Redis any more, so no token will ever come.
    """
    wake = run.key("wake", ticket)
    heard = time.monotonic()
    in_line = False  # whether Redis surely has the ticket: what comes before the first wait may hand it in

    def listen(left: float) -> tuple[Any, ...]:
        nonlocal heard, in_line
        run.check_memory()  # who waits for what is no more is told
        silence, heard = time.monotonic() - heard, time.monotonic()
        if silence > run.ttl / 2000:
            # Excluded: a token that was laid down and has expired while a call of C code held up this whole process.
            run.eval(LAY_AGAIN, [wake, *lines], ticket)
        elif in_line and (missing := run.eval(STILL_WAITS, [wake, *lines], ticket, *place[:1], int(place[1]))):
            raise KeyLost.gone(missing.decode(), f"who waits there, as {ticket} does")
        in_line = True
        return ("BLPOP", wake, left)

    def recover(applied: int) -> list[Any] | None:
        run.check()
        for command in before[applied:]:
            run.store.call(*command)
        if run.eval(IN_LINE, [wake, *lines], ticket):
            return None
        run.store.call("UNLINK", wake)
        return [[wake, b"1"]]

    replies = run.store.wait(listen, timeout, before, (), recover, reads=reads)
    return [bytes(replies[0][1]), *replies[1:]] if replies else [b""]


def _notified(run: Run, waiters: str, ticket: str, timeout: float | None) -> bool:
    """Wait until a ticket in a list of waiters is called up; whether it was in time. If not, it is in line no more."""
    try:
        return bool(_called_up(run, [waiters], ticket, timeout)[0] or run.eval(WITHDRAW, [waiters], ticket))
    except BaseException:
        with suppress(LeaseLost):  # then there is nothing to withdraw
            run.eval(WITHDRAW, [waiters], ticket)
        raise


class _OverRedis:
    """The stdlib's class with its operating system semaphore replaced; goes first in the bases."""

    _semlock: SemLock
    _make_methods: Any
    _is_fork_ctx = False

    def _begin(self, ctx: Any, kind: int, value: int, maxvalue: int, owned: bool = False) -> None:
        # Excluded: Redis counting with what is no whole number, or with a bool.
        value, maxvalue = int(operator.index(value)), int(maxvalue)
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        run = ctx.connect()
        self._semlock = SemLock(run, run.new_name("sem"), kind, value, maxvalue, owned)
        self._make_methods()

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return self._semlock.state()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        run = runs.current()
        assert run is not None
        self._semlock = SemLock(run, *state)
        self._make_methods()


class Lock(_OverRedis, synchronize.Lock):
    """A lock that excludes on every host.

    On Redis: hash ``sem:ID`` with value 1 or 0; one script to acquire, one to release, BLPOP to wait.

    Differs from multiprocessing: it is free again when its holder has died. Waiters get it in the order in which they
    came. Released by a process that was taken for dead, it raises LeaseLost.
    """

    def __init__(self, *, ctx: Any) -> None:
        self._begin(ctx, SEMAPHORE, 1, 1, owned=True)


class RLock(_OverRedis, synchronize.RLock):
    """A lock that the thread which holds it may take again.

    On Redis: as Lock; taking it again is counted in the process and costs no round trip.

    Differs from multiprocessing: as Lock.
    """

    def __init__(self, *, ctx: Any) -> None:
        self._begin(ctx, RECURSIVE_MUTEX, 1, 1, owned=True)


class Semaphore(_OverRedis, synchronize.Semaphore):
    """A number of places.

    On Redis: as Lock, with other values.

    Differs from multiprocessing: waiters get a place in the order in which they came. A place taken by a process that has
    ended is not given back, as in multiprocessing: it may have been a signal, and nobody can tell.
    """

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        self._begin(ctx, SEMAPHORE, value, SEM_VALUE_MAX)


class BoundedSemaphore(_OverRedis, synchronize.BoundedSemaphore):
    """A number of places, of which no more can be given back than there were.

    On Redis, and differs from multiprocessing: as Semaphore.
    """

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        self._begin(ctx, SEMAPHORE, value, value)


class Condition(synchronize.Condition):
    """A condition variable.

    The stdlib's notifier waits until each waiter that it woke has said so, for ever if one of them was killed. Here the
    waiters stand in a list, and notifying is one script that has those that are alive get in line for the lock. So each wakes
    once, when it is its turn and with the lock, and not all of them to find it taken.

    On Redis: list ``condition:ID``, then that of those who wait for the lock; a list ``wake:TICKET`` for each waiter.

    Differs from multiprocessing: a waiter that was killed does not hold up who notifies.
    """

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        run = ctx.connect()
        self.__setstate__((lock or ctx.RLock(), run.new_name("condition")))

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return (self._lock, self._name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._lock, self._name = state
        self._run: Run = self._lock._semlock.run
        self._make_methods()  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait to be notified, take the lock again; whether we were notified in time."""
        semlock = self._lock._semlock
        assert semlock._is_mine(), "must acquire() condition before using wait()"
        more = semlock._count() - 1
        for _ in range(more):
            self._lock.release()
        try:
            # Excluded: a notification between the release and the wait. Both are one step.
            return bool(semlock.step_aside(self._name, timeout))
        finally:
            for _ in range(more):
                self._lock.acquire()

    def notify(self, n: int = 1) -> None:
        """Wake up to n of those that wait."""
        assert self._lock._semlock._is_mine(), "lock is not owned"
        self._run.post(NOTIFY, [self._lock._semlock.name, self._name], n)


class Event(synchronize.Event):
    """An event.

    The stdlib's takes the lock of its condition for each look. Here a look, a setting and the beginning of a wait are one
    script each. So the handler of a signal may set the event that its own thread is looking at, or is waiting for.

    On Redis: the semaphore and the condition of the stdlib's, whose value and whose waiters the scripts work with.

    Differs from multiprocessing: who waits returns True when it was set, though it be cleared at once, as in threading.
    """

    _cond: Condition
    _flag: Semaphore

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag._semlock._get_value() > 0

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._cond._run.eval(SET, self._keys)

    def clear(self) -> None:
        """Have those that come wait again."""
        self._cond._run.eval(CLEAR, self._keys[:1])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; whether it was in time."""
        run, waiters = self._cond._run, self._cond._name
        if timeout is not None and timeout <= 0:
            return self.is_set()
        ticket = run.new_ticket()
        return bool(run.eval(AWAIT, self._keys, ticket)) or _notified(run, waiters, ticket, timeout)

    @property
    def _keys(self) -> list[str]:
        return [self._flag._semlock.name, self._cond._name]


class Barrier(synchronize.Barrier):
    """A barrier; its two counters are a shared array instead of a piece of shared memory.

    On Redis: a Condition, and string ``memory:ID`` of two integers.
    """

    def __init__(self, parties: int, action: Any = None, timeout: float | None = None, *, ctx: Any) -> None:
        if parties < 1:
            raise ValueError("parties must be >= 1")
        self.__setstate__((parties, action, timeout, ctx.Condition(), ctx.RawArray("i", 2)))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._parties, self._action, self._timeout, self._cond, self._array = state
        self._seen: list[int] = []
        self._seen_at = 0

    def _read(self, index: int) -> int:
        """State or count. Both change under the condition's lock only, so one round trip serves for as long as it is held."""
        semlock = self._cond._lock._semlock
        if not semlock._is_mine():
            return int(self._array[index])
        if self._seen_at != semlock.takes:
            self._seen, self._seen_at = self._array[:], semlock.takes
        return self._seen[index]

    def _write(self, index: int, value: int) -> None:
        self._read(index)
        self._array[index] = self._seen[index] = value

    # of threading.Barrier, in place of its attributes
    _state = property(lambda self: self._read(0), lambda self, value: self._write(0, value))
    _count = property(lambda self: self._read(1), lambda self, value: self._write(1, value))

    def __getstate__(self) -> tuple[Any, ...]:
        return (self._parties, self._action, self._timeout, self._cond, self._array)
