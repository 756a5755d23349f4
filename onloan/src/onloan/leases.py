"""Leases on messages: whoever takes one must say, again and again, that it still has it; or it is given to somebody else.

On Redis, for a queue ``Q``, which is the plain list of messages that every Celery producer pushes to:

* ``Q:leases``: sorted set, tag -> when its lease lapses (milliseconds, the server's clock; 0: given back).
* ``Q:held``: hash, id -> the message. Taking one moves it here in the script that takes it out of the list, so it is at
  no time in a socket or a worker's memory only.
* ``leases``: hash, ``seen`` (when anybody was last heard of) and ``grace`` (until when no lapsed lease is believed).

A tag is ``ID.DELIVERY.LOSSES``. Each delivery of a message has a number of its own, which is its fencing token: a worker
that was silent and comes back holds a tag that is in ``Q:leases`` no more, so neither its acknowledgement nor its renewal
touches the message that somebody else is running now. Losses count the deliveries that ended badly.

Nothing is ever moved back into the queue: who takes from a queue first looks for a lapsed lease, and takes that message
over. So there is no sweeper that could die, no mutex that it could leave locked, and no moment between two steps.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import redis

from onloan.deadletters import LUA_BURY, TTL_MS

log = logging.getLogger("onloan.leases")

BEATS = 4
"""Renewals in the time of a lease."""

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
_FULL = "redis.call('HDEL', KEYS[1], '')\n"
"""What a script begins with that must run when Redis has no memory left (``maxmemory``): nothing of a script is refused any
more once it has written, and this counts as writing."""
_SEEN = "redis.call('HSET', KEYS[1], 'seen', now) redis.call('PEXPIRE', KEYS[1], 3600000)\n"

TAKE = (
    _FULL
    + _NOW
    + """
local lease, sweep, limit = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])

-- Whether each message that is held has a lease; if not, somebody has deleted leases, and nobody would ever look for it.
-- It gets one, which whoever runs it renews if this is the first delivery, and else lapses.
local function find(leases, held)
  if redis.call('HLEN', held) <= redis.call('ZCARD', leases) then return end
  local lent = {}
  for _, tag in ipairs(redis.call('ZRANGE', leases, 0, -1)) do lent[string.match(tag, '^[^.]*')] = true end
  for _, id in ipairs(redis.call('HKEYS', held)) do
    if not lent[id] then redis.call('ZADD', leases, now + lease, id .. '.1.0') end
  end
end

local function lend(i, id, delivery, losses, raw)
  local tag = id .. '.' .. delivery .. '.' .. losses
  redis.call('ZADD', KEYS[i + 1], now + lease, tag)
  if #raw > limit then raw = #raw end
  return {i, tag, raw}
end

if sweep then
  local seen, grace = unpack(redis.call('HMGET', KEYS[1], 'seen', 'grace'))
  seen, grace = tonumber(seen) or 0, math.min(tonumber(grace) or 0, now + lease)  -- whatever somebody wrote there
  -- If nobody was heard of for half a lease, the server was away, and those who run tasks could not renew their leases:
  -- they get the time of a lease to do so.
  if now - seen > lease / 2 then
    grace = now + lease
    redis.call('HSET', KEYS[1], 'grace', grace)
  end
  """
    + _SEEN
    + """
  local lapsed = now < grace and 0 or now
  for i = 2, #KEYS, 3 do
    find(KEYS[i + 1], KEYS[i + 2])
    while true do
      local tag, score = unpack(redis.call('ZRANGEBYSCORE', KEYS[i + 1], '-inf', lapsed, 'WITHSCORES', 'LIMIT', 0, 1))
      if not tag then break end
      redis.call('ZREM', KEYS[i + 1], tag)
      local id, delivery, losses = string.match(tag, '^(%x+%-%d+)%.(%d+)%.(%d+)$') -- else it is none of ours: forgotten
      local raw = id and #delivery + #losses < 16 and redis.call('HGET', KEYS[i + 2], id)
      if raw then return lend(i, id, delivery + 1, losses + (score == '0' and 0 or 1), raw) end
    end
  end
end
for i = 2, #KEYS, 3 do
  local raw = redis.call('LINDEX', KEYS[i], -1)
  if raw then
    -- Out of the list last. Excluded: a message that is nowhere, as Redis refused one of the other two.
    local lent = lend(i, ARGV[4], 1, 0, raw)
    redis.call('HSET', KEYS[i + 2], ARGV[4], raw)
    redis.call('RPOP', KEYS[i])
    return lent
  end
end
"""
)
"""KEYS: state, then (list, leases, held) of each queue. ARGV: lease, whether to look for lapsed ones, limit of bytes, id."""

RENEW = (
    _FULL
    + _NOW
    + _SEEN
    + """
local lost = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
)

SETTLE = """
for _, tag in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[1], tag) == 1 then redis.call('HDEL', KEYS[2], string.match(tag, '^(.+)%.%d+%.%d+$')) end
end
"""

# A lease that lapsed long ago: at 0 through no fault of the message, at 1 a loss.
GIVE_BACK = """
redis.call('ZREM', KEYS[1], '') -- as _FULL
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) end
"""

BURY = (
    LUA_BURY
    + _NOW
    + """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  local id = string.match(ARGV[1], '^(.+)%.%d+%.%d+$')
  bury(KEYS[3], ARGV[2], redis.call('HGET', KEYS[2], id) or '', now)
  redis.call('HDEL', KEYS[2], id)
end
"""
)

SET_ASIDE = """
local found = redis.call('TYPE', KEYS[1])['ok']
if found == 'none' or found == ARGV[1] then return false end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return found
"""

_SHA = {
    script: sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (TAKE, RENEW, SETTLE, GIVE_BACK, BURY, SET_ASIDE)
}


@dataclass(frozen=True)
class Loan:
    """A message that this process may run.

    Attributes:
        queue: Name of its queue, without a prefix.
        tag: What it is settled by; names the queue as well, so that it is one string, as Celery wants it.
        delivery: 1 the first time that it is given to a worker.
        losses: Deliveries that ended badly.
        raw: The message; its size in bytes if that is over the limit, and the message is not brought here.
    """

    queue: str
    tag: str
    delivery: int
    losses: int
    raw: bytes | int


class Ledger:
    """What this process has on loan from one broker, and the thread that keeps it.

    All that is said about a loan (renewed, done, given back, dead) is said by this thread, over a connection of its own.
    So the worker's event loop never waits for Redis on that account; a pool that blocks the loop (solo), a soft shutdown
    and a reconnect that takes its time do not stop the renewals; and what could not be said because Redis was away is
    kept, the lease with it, and said when it is back. Every script is harmless when repeated, as a tag is used once.

    Args:
        pool: Connections to the broker, short of patience: a call that hangs must end well within a lease.
        prefix: What all keys begin with.
        lease: Seconds.
        dead_key: The list of dead letters, without the prefix.
    """

    def __init__(self, pool: redis.ConnectionPool, prefix: str, lease: float, dead_key: str) -> None:
        self.lease = lease
        self.state_key, self.dead_key = prefix + "leases", prefix + dead_key
        self._prefix = prefix
        self._pool = pool
        self._ids = itertools.count(1)
        self._reset()

    def _reset(self) -> None:
        self._name = secrets.token_hex(5)  # ids of two processes never meet
        # Around the four collections below. Both locks may be taken again by a signal handler, which a stopping worker runs
        # much in, on top of the frame that holds them.
        self._lock = threading.RLock()
        self._held: set[str] = set()
        self._queues: set[str] = set()
        self._abandoned: set[str] = set()
        self._outbox: dict[str, tuple[str, str]] = {}  # tag -> script, argument
        self._notes: dict[str, str] = {}
        self._wake = threading.Event()
        self._speaking = threading.RLock()  # held while the connection is in use
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._failing = False

    # -- taking

    def take_command(
        self, queues: Iterable[tuple[str, str]], sweep: bool, limit: int, by_name: bool
    ) -> tuple[Any, ...]:
        """The command that takes a message.

        Args:
            queues: Name and key of each list to look at, in this order.
            sweep: Whether to look for a lapsed lease first.
            limit: Bytes above which a message is not brought here.
            by_name: Send only the script's digest, as the server knows it.
        """
        keys = [self.state_key]
        for name, key in queues:
            self._queues.add(name)
            keys += [self._prefix + key, *self._keys(name)]
        script = ("EVALSHA", _SHA[TAKE]) if by_name else ("EVAL", TAKE)
        milliseconds = int(self.lease * 1000)
        return (*script, len(keys), *keys, milliseconds, int(sweep), limit, f"{self._name}-{next(self._ids)}")

    def taken(self, reply: Any, queues: list[tuple[str, str]]) -> Loan:
        """The loan that a reply to ``take_command`` is about; from here on it is renewed."""
        index, tag, raw = reply
        tag, (queue, _) = tag.decode(), queues[(index - 2) // 3]
        _, delivery, losses = tag.rsplit(".", 2)
        loan = Loan(queue, f"{tag}@{queue}", int(delivery), int(losses), raw)
        with self._lock:
            self._held.add(loan.tag)
        self._keep()
        return loan

    def take(self, queues: list[tuple[str, str]], limit: int) -> Loan | None:
        """Take a message here and now; None if there is none."""
        with self._speaking:
            (reply,) = self._exchange([self.take_command(queues, True, limit, False)])
        if isinstance(reply, Exception):
            raise reply
        return self.taken(reply, queues) if reply else None

    # -- keys that somebody else has written to

    def set_aside(self, others: Mapping[str, str]) -> None:
        """Move what is of another type than it must be out of the way, for as long as a dead letter is kept.

        Excluded: a queue that nobody can send to or take from until somebody finds out why. What is moved is no message, and
        no lease; it is kept, as nobody knows whose it is.

        Args:
            others: Keys beside those of the loans, with their types.
        """
        with self._lock:
            queues = self._queues | {tag.rpartition("@")[2] for tag in self._held}
        types = {self.state_key: "hash", self.dead_key: "list", **others}
        for leases, held in map(self._keys, queues):
            types |= {leases: "zset", held: "hash"}
        calls = [(SET_ASIDE, 2, key, f"{key}:aside", kind, TTL_MS) for key, kind in types.items()]
        with self._speaking:
            replies = self._evaluate(calls)
        for key, found in zip(types, replies, strict=True):
            if isinstance(found, bytes):
                log.error("%s was a %s, and must be a %s: it lies under %s:aside", key, found.decode(), types[key], key)

    # -- what becomes of a loan

    def settle(self, tag: str) -> None:
        """It is done: forget the message, or bury it if ``note`` has said why."""
        with self._lock:
            said = self._notes.pop(tag, None)
        self._say(tag, *((BURY, said) if said else (SETTLE, "")))

    def give_back(self, tag: str, loss: bool) -> None:
        """Have somebody else run it; a loss if it may be to blame itself."""
        self._say(tag, GIVE_BACK, "1" if loss else "0")

    def bury(self, tag: str, said: str) -> None:
        """Make it a dead letter (``deadletters.letter``)."""
        self._say(tag, BURY, said)

    def note(self, tag: str, said: str) -> None:
        """It will be settled soon, but not because it was run: make it a dead letter then."""
        with self._lock:
            if tag in self._held:
                self._notes[tag] = said

    def abandon(self, tags: Iterable[str], running: Iterable[str]) -> None:
        """The connection that they came by is lost: keep those that run, let the others lapse."""
        with self._lock:
            self._abandoned = set(tags).difference(running, self._outbox)
            self._held -= self._abandoned

    def flush(self, seconds: float) -> bool:
        """Wait until all has been said; False if it took too long, and is left to the leases."""
        deadline = time.monotonic() + seconds
        while self._outbox and time.monotonic() < deadline:
            try:
                with self._speaking:
                    self._speak()
            except (redis.RedisError, OSError):
                time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))  # between two attempts to reach Redis
        return not self._outbox

    def _say(self, tag: str, script: str, argument: str) -> None:
        with self._lock:
            self._outbox.setdefault(tag, (script, argument))
        self._keep()
        self._wake.set()

    def _keys(self, queue: str) -> tuple[str, str]:
        return f"{self._prefix}{queue}:leases", f"{self._prefix}{queue}:held"

    # -- the thread

    def _keep(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="onloan-leases", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        beat = self.lease / BEATS
        due = time.monotonic() + beat
        while True:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            try:
                with self._speaking:
                    self._speak()
                    if time.monotonic() >= due:
                        due = time.monotonic() + beat
                        self._renew()
                self._failing = False
            except (redis.RedisError, OSError) as exc:
                if is_wrong_type(exc):
                    self._put_right()
                if not self._failing:
                    log.warning("leases cannot be renewed, will go on trying: %s", exc)
                self._failing = True
                time.sleep(min(0.3, beat / 2))  # between two attempts to reach Redis
                due = time.monotonic()

    def _put_right(self) -> None:
        with suppress(redis.RedisError, OSError):  # the next attempt fails as this one did, and comes here again
            self.set_aside({})

    def _speak(self) -> None:
        """Send what is in the outbox; what is not known to have arrived stays there, and its lease with it."""
        with self._lock:
            batch = dict(itertools.islice(self._outbox.items(), 1_000))
        if not batch:
            return
        done: dict[str, list[str]] = {}
        calls: list[tuple[list[str], tuple[Any, ...]]] = []
        for tag, (script, argument) in batch.items():
            name, _, queue = tag.rpartition("@")
            if script is SETTLE:
                done.setdefault(queue, []).append(name)
            elif script is BURY:
                calls.append(([tag], (BURY, 3, *self._keys(queue), self.dead_key, name, argument)))
            else:
                calls.append(([tag], (GIVE_BACK, 2, *self._keys(queue), name, argument)))
        for queue, names in done.items():
            calls.append(([f"{name}@{queue}" for name in names], (SETTLE, 2, *self._keys(queue), *names)))
        replies = self._evaluate([call for _, call in calls])
        failed = None
        with self._lock:
            for (tags, _), reply in zip(calls, replies, strict=True):
                if isinstance(reply, Exception):
                    failed = reply
                    continue
                for tag in tags:
                    self._held.discard(tag)
                    self._outbox.pop(tag, None)
        if failed is not None:
            raise failed
        if self._outbox:
            self._wake.set()

    def _renew(self) -> None:
        """Renew what is held; also what had been abandoned, but turns out to be run."""
        with self._lock:
            if self._abandoned:
                back = self._abandoned.intersection(running())
                self._held |= back
                self._abandoned -= back
            tags = sorted(self._held, key=lambda tag: tag.rpartition("@")[2])
        calls = []
        for queue, group in itertools.groupby(tags, lambda tag: tag.rpartition("@")[2]):
            names = [tag.rpartition("@")[0] for tag in group]
            keys = (self.state_key, self._keys(queue)[0])
            for at in range(0, len(names), 1_000):
                calls.append((queue, (RENEW, 2, *keys, int(self.lease * 1000), *names[at : at + 1_000])))
        for (queue, _), reply in zip(calls, self._evaluate([call for _, call in calls]), strict=True):
            if isinstance(reply, Exception):
                raise reply
            for name in reply:
                self._lost(f"{name.decode()}@{queue}")

    def _lost(self, tag: str) -> None:
        with self._lock:
            self._outbox.pop(tag, None)
            if tag not in self._held:
                return
            self._held.discard(tag)
        log.warning("lease lost on %s: this worker was silent for %g s, so it may run twice", tag, self.lease)

    def _evaluate(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Run scripts in one round trip; their replies, errors among them."""
        if not calls:
            return []
        commands = [("EVALSHA", _SHA[script], *rest) for script, *rest in calls]
        replies = self._exchange(commands)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
            self._exchange([("SCRIPT", "LOAD", script) for script in _SHA])  # a server that was restarted knows none
            replies = self._exchange(commands)
        return replies

    def _exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send commands, read as many replies; on a bare connection, as redis-py's client takes longer than Redis."""
        # taken out while it is used: a signal handler that comes in between must not read our replies
        connection: Any = self._connection or self._pool.make_connection()
        self._connection = None
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [_reply(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # whatever has been sent or is still to come belongs to nobody
            raise
        finally:
            self._connection = connection


def is_wrong_type(exc: BaseException) -> bool:
    """Whether Redis complains of a key that holds something else than what the command is for."""
    return isinstance(exc, redis.exceptions.ResponseError) and "WRONGTYPE" in str(exc)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.exceptions.ResponseError as exc:
        return exc


def running() -> set[str]:
    """Tags of what the Celery worker of this process is running, if it is one."""
    state: Any = sys.modules.get("celery.worker.state")
    while state is not None:
        try:
            return {request.message.delivery_tag for request in tuple(state.active_requests)}
        except RuntimeError:  # the loop has changed the set just now: look again
            continue
    return set()


_LEDGERS: dict[tuple[Any, ...], Ledger] = {}
_REGISTER = threading.RLock()


def ledger(key: tuple[Any, ...], make: Any) -> Ledger:
    """The ledger of this process for one broker; it outlives the connections that messages come by."""
    with _REGISTER:
        found = _LEDGERS.get(key)
        if found is None:
            found = _LEDGERS[key] = make()
        return found


def note(tag: str, said: str) -> None:
    """Tell the ledger that holds the tag, whichever it is, that it will be a dead letter (``Ledger.note``)."""
    for each in list(_LEDGERS.values()):
        each.note(tag, said)


_paused: list[Ledger] = []


def _before_fork() -> None:
    # Excluded: a fork while the thread is in the middle of a command, which would leave the child with a lock that nobody
    # releases. Bounded by the time-outs of the ledger's connections.
    _REGISTER.acquire()
    for each in _LEDGERS.values():
        each._speaking.acquire()
        each._lock.acquire()
        _paused.append(each)


def _after_fork_in_parent() -> None:
    while _paused:
        each = _paused.pop()
        each._lock.release()
        each._speaking.release()
    _REGISTER.release()


def _after_fork_in_child() -> None:
    # what the parent holds is the parent's to keep
    _paused.clear()
    for each in _LEDGERS.values():
        each._reset()
    _REGISTER.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
