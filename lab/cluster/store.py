"""Redis as seen by one process: one ordered lane for what does not block, a lane of its own for each thread that waits.

Everything that a process tells Redis without blocking goes down *one* connection, under a lock. Redis executes a
connection's commands in the order in which they were sent, so two threads of a process see each other's writes in
program order even when the first did not wait for its reply (``post``). A command that blocks would hold up that lane,
so each waiting thread has a second connection, used only after the replies of the first are in (``wait``).

Connections are redis-py's own, so TLS, authentication and the handshake are too; what is left out is its client object,
which looks up, times and retries each command, and has no way to send now and read later.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from types import TracebackType
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.cluster import tls
from lab.cluster.wire import LARGE
from lab.errors import BrokerUnreachable, LeaseLost

SLICE = 5.0
"""Seconds that one blocking command waits in Redis before it is sent again: what bounds the wait on a silent server."""

GRACE = 5.0
"""Seconds, beyond those that a command blocks, after which a server that has not answered is taken for dead."""

_HELPERS = {
    "alive": "local function alive(process) return redis.call('ZSCORE', processes, process) end",
    # a process whose lease lapsed changes nothing any more
    "fenced": "local function fenced() if not alive(me) then return redis.error_reply('LEASELOST ' .. me) end end",
    "keep": "local function keep(key) redis.call('PEXPIRE', key, ttl) end",
    "create": "local function create(key) redis.call('SADD', registry, key) keep(registry) keep(key) end",
    "now": "local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end",
    # a list is gone when it is empty, and its expiry with it
    "push": "local function push(key, ...) if redis.call('RPUSH', key, ...) == select('#', ...) then keep(key) end end",
    # who has waited longest, of those that are still alive
    "next_waiter": """
local function next_waiter(waiters)
  while true do
    local waiter = redis.call('LPOP', waiters)
    if not waiter or alive(string.match(waiter, '^[^/]+')) then return waiter end
  end
end""",
    # hand a place to whoever is next
    "grant": """
local function grant(sem)
  local waiter = next_waiter(sem .. ':waiters')
  if not waiter then return false end
  redis.call('HSET', sem, 'holder', waiter)
  push(base .. 'wake:' .. waiter, redis.call('HINCRBY', sem, 'fence', 1))
  return true
end""",
    # one holder fewer of a pipe's end; the peer of the last one reads end of file
    "hang_up": """
local function hang_up(tail, token)
  if redis.call('SREM', tail .. ':holders', token) == 1 and redis.call('EXISTS', tail .. ':holders') == 0 then
    local head = string.sub(tail, 1, -2) .. (string.sub(tail, -1) == 'a' and 'b' or 'a')
    push(head, '')
    redis.call('DEL', tail)
  end
end""",
}
SCRIPTS: list[Script] = []


class Script:
    """A Lua script that Redis runs between two other commands; KEYS and ARGV of the caller start at 3.

    The first two of each are known to it by name: ``processes`` (sorted set of the run's processes, id to lease expiry
    in milliseconds of the server's clock), ``registry`` (set of the run's keys), ``me`` (id of the calling process) and
    ``ttl`` (milliseconds that a key lives). ``base`` is what the run's keys begin with. The helpers above can be called.
    """

    def __init__(self, text: str) -> None:
        head = "local processes, registry, me, ttl = KEYS[1], KEYS[2], ARGV[1], ARGV[2]\n"
        body = text
        for name, helper in reversed(_HELPERS.items()):  # only those that are used, which is quicker to run
            if f"{name}(" in body:
                body = f"{helper}\n{body}"
        self.text = head + ("local base = string.sub(registry, 1, -5)\n" if "base" in body else "") + body
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        SCRIPTS.append(self)


class Link:
    """One connection; a reply belongs to whoever sent the command, so its user holds it alone."""

    def __init__(self, pool: redis.ConnectionPool, timeout: float) -> None:
        self._connection: Any = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": timeout})
        self._connection.register_connect_callback(self._load_scripts)

    def _load_scripts(self, connection: Any) -> None:
        # on every connect, so that a restarted server knows them again
        connection.send_packed_command(_pack([("SCRIPT", "LOAD", script.text) for script in SCRIPTS]))
        for _ in SCRIPTS:
            connection.read_response()

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send commands; as many replies will come."""
        self._connection.send_packed_command(_pack(commands), check_health=False)

    def read(self) -> Any:
        """The next reply; an error reply is returned, not raised, so that the ones after it keep their places."""
        try:
            return self._connection.read_response(disable_decoding=True)
        except redis.ResponseError as exc:
            return exc

    def fileno(self) -> int:
        """The socket's descriptor, to select on."""
        return int(self._connection._sock.fileno())

    @property
    def closed(self) -> bool:
        """Whether the next command would connect first."""
        return self._connection._sock is None

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()


def _pack(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Commands as buffers to send one after another: one for all that is small, and each large part as it is."""
    buffers: list[Any] = []
    small: list[Any] = []
    for command in commands:
        if list not in map(type, command):
            small.append(hiredis.pack_command(command))
            continue
        small.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts = argument if type(argument) is list else [_bytes(argument)]
            small.append(b"$%d\r\n" % sum(map(len, parts)))
            for part in parts:
                if len(part) < LARGE:
                    small.append(part)
                else:
                    buffers += [b"".join(small), part]
                    small = []
            small.append(b"\r\n")
    return [*buffers, b"".join(small)]


def _bytes(argument: Any) -> Any:
    return argument if isinstance(argument, (bytes, memoryview)) else str(argument).encode()


class Store:
    """The lanes of this process to one Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.

    Raises (every method):
        BrokerUnreachable: The connection could not be made, or broke.
    """

    def __init__(self, url: str) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_connect_timeout=2.0,
            socket_read_size=1 << 18,
            retry=Retry(NoBackoff(), 0),
            **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        )
        self.address = _address(url)
        self._lock = threading.Lock()
        self._lane = Link(self._pool, GRACE)
        self._unread = 0
        self._late_error: Exception | None = None
        self._deferred: deque[tuple[Any, ...]] = deque()
        self._waiting = threading.local()
        self._guard = _BrokenMeansUnreachable(self)
        _STORES.add(self)

    def after_fork(self) -> None:
        """Give a forked child lanes of its own; the sockets it inherited stay the parent's."""
        self._lock = threading.Lock()
        self._lane = Link(self._pool, GRACE)
        self._unread, self._late_error = 0, None
        self._deferred = deque()
        self._waiting = threading.local()

    def call(self, *command: Any) -> Any:
        """Run one command; its reply."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip; their replies, the first error raised."""
        with self._guard, self._lock:
            self._flush()
            self._lane.send(commands)
            self._settle()
            replies = [self._lane.read() for _ in commands]
            self._raise_late()
        for reply in replies:
            if isinstance(reply, Exception):
                raise translated(reply)
        return replies

    def post(self, *command: Any) -> None:
        """Send a command without waiting: it takes effect before whatever this process sends next.

        An error it meets is raised by the next call that does wait.
        """
        with self._guard, self._lock:
            self._flush()
            self._lane.send([command])
            self._unread += 1
            if self._unread > 1_000:  # let neither side's buffer of unread replies grow without bound
                self._settle()

    def defer(self, *command: Any) -> None:
        """Send a command from a finalizer, which may run anywhere, even inside ``pipeline`` of this very thread.

        Excluded: waiting for a lock that the interrupted frame below holds, and a command sent between that frame's
        own command and its reply. If the lane is taken, whoever uses it next sends this first.
        """
        self._deferred.append(command)
        if self._lock.acquire(blocking=False):
            try:
                self._flush()
            except (redis.RedisError, OSError):
                return  # the object dies with the connection; its keys expire
            finally:
                self._lock.release()

    def settle(self) -> None:
        """Wait until everything posted so far has taken effect, and raise what went wrong with it."""
        with self._guard, self._lock:
            self._flush()
            self._settle()
            self._raise_late()

    def wait(
        self,
        command: Callable[[float], tuple[Any, ...]],
        timeout: float | None,
        before: Sequence[tuple[Any, ...]] = (),
        after: Sequence[tuple[Any, ...]] = (),
    ) -> Any:
        """Run a blocking command until it replies something or time is up; None if time is up.

        Args:
            command: Makes the command for a number of seconds to block, which is at most ``SLICE``.
            timeout: Seconds, None for as long as it takes.
            before: Commands for Redis to run first, in the same round trip; their replies are dropped.
            after: Commands for Redis to run as soon as the blocking one has ended, in the same round trip. If there are
                any, the reply is a list: the blocking one's and theirs.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # Excluded: a waiter on its own lane overtaking what this process posted before it began to wait.
        if self._unread or self._deferred:
            self.settle()
        link = self._own_link()
        while True:
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if left <= 0:
                return None
            with self._guard:
                link.send([*before, command(max(left, 0.001)), *after])
                replies = [link.read() for _ in range(len(before) + 1 + len(after))]
            for reply in replies:
                if isinstance(reply, Exception):
                    raise translated(reply)
            replies, before = replies[len(before) :], ()
            if replies[0] is not None:
                return replies if after else replies[0]

    def link(self) -> Link:
        """A fresh connection for a caller that watches its socket itself and closes it."""
        return Link(self._pool, SLICE + GRACE)

    def _own_link(self) -> Link:
        link: Link | None = getattr(self._waiting, "link", None)
        if link is None:
            link = self._waiting.link = self.link()
        return link

    def _flush(self) -> None:
        while self._deferred:
            self._lane.send([self._deferred.popleft()])
            self._unread += 1

    def _settle(self) -> None:
        while self._unread:
            reply = self._lane.read()
            self._unread -= 1
            if isinstance(reply, Exception):
                self._late_error = translated(reply)

    def _raise_late(self) -> None:
        error, self._late_error = self._late_error, None
        if error is not None:
            raise error


class _BrokenMeansUnreachable:
    """Turns redis-py's errors into ours. A class, as it stands around every command: a generator would cost 2 us."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is None:
            return
        if self._store._lane.closed:  # broken, or interrupted in the middle of a reply: redis-py gave it up
            self._store._unread = 0
        if isinstance(exc, redis.RedisError):
            raise unreachable(self._store.address, exc) from exc


_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_STORES):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def translated(error: Exception) -> Exception:
    """The lab's error for an error reply of one of its scripts."""
    text = str(error)
    if "LEASELOST" in text:
        return LeaseLost(
            "This process was silent for longer than its lease and was taken for dead; what it sent now was refused.",
            "Its locks belong to others by now. Start the work again, or allow longer silences: CROSSHOST_LEASE=30",
        )
    if text.startswith(("READONLY", "OOM", "NOPERM", "MISCONF")):
        return BrokerUnreachable(f"Redis refuses the command: {text}.", "Look at its log, or at the user's ACL.")
    return error


def unreachable(address: str, exc: Exception) -> BrokerUnreachable:
    """The error for a Redis that does not answer, or not to us."""
    if isinstance(exc, redis.AuthenticationError):
        reason = str(exc).rstrip(".")
        return BrokerUnreachable(
            f"Redis at {address} refused the user or password: {reason}.", "Correct CROSSHOST_BROKER_URL."
        )
    if refused := tls.refused(address, exc):
        return refused
    return BrokerUnreachable(
        f"Redis at {address} does not answer: {exc}",
        "Start it, correct CROSSHOST_BROKER_URL, or do without: unset CROSSHOST_BROKER_URL",
    )


def _address(url: str) -> str:
    # without user, password and options
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
