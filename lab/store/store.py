"""Redis as seen by one process: one ordered lane for what does not block, a lane of its own for each thread that waits.

Everything that a process tells Redis without blocking goes down *one* lane, under a lock. Redis executes a connection's
commands in the order in which they were sent, so two threads of a process see each other's writes in program order even
when the first did not wait for its reply (``post``). A command that blocks would hold up that lane, so each waiting thread
has a second one, used only after the replies of the first are in (``wait``).

When Redis goes away, every method here goes on trying for as long as the store is patient, and then goes on where it was.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.store.damage import explained
from lab.store.lane import Broken, Command, Lane
from lab.store.link import Link
from lab.store.outage import Outage
from lab.store.script import NUMBERED
from lab.store.shortage import PAUSE, SHARE, Shortage, free_memory, is_full

SLICE = 5.0
"""Seconds that one blocking command waits in Redis before it is sent again: what bounds the wait on a silent server."""

GRACE = 5.0
"""Seconds, beyond those that a command blocks, after which a server that has not answered is taken for dead."""

UNREAD, UNREAD_BYTES = 1_000, 1 << 23
"""Commands, and their bytes, sent without reading a reply: neither side's buffers may grow without bound."""


class Mark(NamedTuple):
    """How far a process has come in talking to Redis: replies heard, commands sent, and the lane, which a fork changes."""

    heard: int
    sent: int
    lane: Lane

    def after(self, sent: int, heard: int = 1) -> Mark:
        """How far it is when it has sent and heard so much more, and nothing else."""
        return Mark(self.heard + heard, self.sent + sent, self.lane)


class Store:
    """The lanes of this process to one Redis.

    Commands that are not numbered scripts must do no harm when they run twice (see ``lane.Lane``).

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        patience: Seconds for which a Redis that was there, and went away, is waited for.
        tell: Whether to tell the user when that happens.
        outage: What another store of this process, to the same server, knows of its absence; in place of the two before.

    Attributes:
        heard: Replies that somebody in this process has waited for: while it is the same, nobody has learned anything.

    Raises (every method):
        BrokerUnreachable: The first connection could not be made, or a broken one not in time.
    """

    def __init__(self, url: str, patience: float = 0.0, tell: bool = False, outage: Outage | None = None) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_connect_timeout=2.0,
            socket_read_size=1 << 12,  # for the first words only: then a link reads for itself
            driver_info=None,  # redis-py would look its own version up, in files, for each connection
            retry=Retry(NoBackoff(), 0),
            **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        )
        self._url, self.address = url, _address(url)
        self.outage = outage or Outage(self.address, patience, tell)
        self.shortage = Shortage(self.address, self.outage.patience, tell)
        self._begin()
        _STORES.add(self)

    def _begin(self) -> None:
        self._lane = Lane(Link(self._pool, GRACE), self.outage)
        # It tells whether this very thread has it: then it is in a signal's handler, and goes round by ``_inner``.
        self._lock: Any = threading.RLock()
        self._turn = _Turn(self._lane)
        self._nested: Store | None = None
        self._late_error: Exception | None = None
        self.heard = 0
        self._free, self._free_until = 0, 0.0
        self._deferred: deque[Command | Callable[[], Command]] = deque()
        self._waiting = threading.local()

    def after_fork(self) -> None:
        """Give a forked child lanes of its own; the sockets it inherited stay the parent's."""
        self.outage.after_fork()
        self.shortage.after_fork()
        self._begin()

    def call(self, *command: Any) -> Any:
        """Run one command; its reply. If Redis has no memory for it, it is tried again (``Shortage``)."""
        reply = self._call(command)
        if is_full(reply):
            with self.shortage.waiting() as pause:
                while is_full(reply):
                    pause()
                    reply = self._call(command)
        if isinstance(reply, Exception):
            raise self._explained(reply, command)
        return reply

    def _call(self, command: Command) -> Any:
        if self._lock._is_owned():
            self.heard += 1
            return self._inner._call(command)
        try:
            with self._lock:
                if self._lane.unread or self._deferred or self._late_error:
                    return self._run([command])[0]
                return self._lane.ask(command)
        finally:
            self.heard += 1

    @property
    def _inner(self) -> Store:
        """For the handler of a signal that came while this very thread used the lane: a store of its own.

        Excluded: such a handler waiting for a lock that the frame holds which it has interrupted, or taking that one's reply.
        What that frame was just sending may take effect after what the handler does.
        """
        if self._nested is None:
            self._nested = Store(self._url, outage=self.outage)
            self._nested.shortage = self.shortage
        return self._nested

    @property
    def mark(self) -> Mark:
        """While it is the same, this process has told Redis nothing, and nobody in it has heard anything from there."""
        return Mark(self.heard, self._lane.sent, self._lane)

    def refuses(self, *command: Any) -> bool:
        """Run one command that replies nothing of interest; whether Redis has no memory for it."""
        reply = self._call(command)
        if isinstance(reply, Exception) and not is_full(reply):
            raise self._explained(reply, command)
        return isinstance(reply, Exception)

    def may_post(self, size: int) -> bool:
        """Whether Redis has so much memory left that so many bytes can be posted: it will not refuse them unnoticed.

        It is asked once a second, or when this process has sent a small share of what was free.
        """
        now = time.monotonic()
        if now >= self._free_until or self._free < size:
            self._free_until, self._free = now + 1.0, free_memory(self._call(("INFO", "memory"))) // SHARE
        self._free -= size
        return self._free >= 0

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip; their replies, the first error raised."""
        replies = self._replies(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._explained(reply, command)
        return replies

    def call_and_read(self, command: Command, reads: Sequence[Command]) -> list[Any]:
        """Run one command, and some that read, in one round trip; the replies, None for a read that failed."""
        if not reads:
            return [self.call(*command)]
        reply, *data = self._replies([command, *reads])
        if isinstance(reply, Exception):
            raise self._explained(reply, command)
        return [reply, *map(_unless_failed, data)]

    def _replies(self, commands: Sequence[Command]) -> list[Any]:
        if self._lock._is_owned():
            return self._inner._replies(commands)
        try:
            with self._lock:
                return self._run(commands)
        finally:
            self.heard += 1

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        with self._turn:
            if self._deferred:
                self._flush()
            self._lane.send(commands)
            if self._lane.unread > len(commands):
                self._settle(len(commands))
            replies = [self._lane.read() for _ in commands]
        self._raise_late()
        return replies

    def post(self, *command: Any) -> None:
        """Send a command without waiting: it takes effect before whatever this process sends next.

        An error it meets is raised by the next call that does wait.
        """
        if self._lock._is_owned():
            self._inner.call(*command)
            return
        with self._lock, self._turn:
            if self._deferred:
                self._flush()
            self._lane.send([command])
            if self._lane.unread > UNREAD or self._lane.unread_bytes > UNREAD_BYTES:
                self._settle()

    def defer(self, *command: Any) -> None:
        """Send a command from a finalizer, which may run anywhere, even inside ``pipeline`` of this very thread.

        Excluded: waiting for a lock that the interrupted frame below holds, and a command sent between that frame's
        own command and its reply. If the lane is taken, or broken, whoever uses it next sends this first.
        """
        self._deferred.append(command)
        if not self._lock._is_owned() and self._lock.acquire(blocking=False):
            try:
                while self._deferred and self._lane.send_if_open([self._oldest_deferred()]):
                    self._deferred.popleft()
            finally:
                self._lock.release()

    def say(self, command: Callable[[], Command]) -> None:
        """Send a command before whatever this process sends next, as it is by then."""
        self._deferred.append(command)

    def settle(self) -> None:
        """Wait until everything posted so far has taken effect, and raise what went wrong with it."""
        if self._lock._is_owned():
            return  # in a handler: what this interrupted, nobody can wait for here
        with self._lock, self._turn:
            self._flush()
            self._settle()
        self._raise_late()

    def wait(
        self,
        command: Callable[[float], Command],
        timeout: float | None,
        before: Sequence[Command] = (),
        after: Sequence[Command] = (),
        recover: Callable[[int], list[Any] | None] | None = None,
        instead: Callable[[], list[Any] | None] | None = None,
        reads: Sequence[Command] = (),
    ) -> list[Any] | None:
        """Run a blocking command until it replies something or time is up.

        Args:
            command: Makes the command for a number of seconds to block, which is at most ``SLICE``.
            timeout: Seconds, None for as long as it takes.
            before: Commands for Redis to run first, in the same round trip; their replies are dropped, but for errors.
            after: Commands for Redis to run as soon as the blocking one has ended, in the same round trip.
            recover: Called when the connection broke and was made again, with the number of numbered commands that took
                effect: those of ``before``, even if that was long ago, and of the last ``after``. It returns the
                replies that were lost, or None after having done what ``before`` says: then the blocking command is sent
                again. Without it, everything is sent again.
            instead: Called now and then while Redis has no memory left, and so refuses the blocking command: does the same
                without blocking, by what is not refused; the replies, or None if there was nothing.
            reads: Commands that read, and run after all the others; the reply to one that fails is None.

        Returns:
            The blocking command's reply and those to ``after`` and ``reads``; None if time is up. If the connection broke,
            those to ``reads`` may be missing.
        """
        mine = self._waiting
        if getattr(mine, "busy", False):  # in a handler that interrupts a wait of this thread
            return self._inner.wait(command, timeout, before, after, recover, instead, reads)
        mine.busy = True
        try:
            return self._wait(command, timeout, before, after, recover, instead, reads)
        finally:
            mine.busy = False
            self.heard += 1

    def _wait(
        self,
        command: Callable[[float], Command],
        timeout: float | None,
        before: Sequence[Command],
        after: Sequence[Command],
        recover: Callable[[int], list[Any] | None] | None,
        instead: Callable[[], list[Any] | None] | None,
        reads: Sequence[Command],
    ) -> list[Any] | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        done = 0
        # Excluded: a waiter on its own lane overtaking what this process posted before it began to wait.
        if self._lane.unread or self._deferred:
            self.settle()
        lane = self._own_lane()
        while True:
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            first = len(before)
            commands = [*before, command(max(left, 0.001)), *after]
            try:
                replies = lane.attempt([*commands, *reads])
                if reads:
                    replies[len(commands) :] = map(_unless_failed, replies[len(commands) :])
            except Broken as broken:
                if recover is None:
                    continue
                first, replies = 0, recover(done + broken.applied)  # type: ignore[assignment]
            if before:
                done += sum(command[0] is NUMBERED for command in before)
                before = ()
            if instead is not None and replies is not None and is_full(replies[first]):
                if (taken := instead()) is not None:
                    return taken
                if deadline is None or time.monotonic() < deadline:
                    time.sleep(PAUSE)
                    continue
                return None
            if replies is None:
                continue
            for asked, reply in zip(commands, replies, strict=False):  # fewer, if they were recovered
                if isinstance(reply, Exception):
                    raise self._explained(reply, asked)
            if replies[first] is not None:
                return replies[first:] if first else replies
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def end_wait(self, patiently: bool) -> bool:
        """After a wait of this thread was interrupted: make sure that Redis does not go on with it; whether that is sure.

        Args:
            patiently: Wait for a Redis that is away.
        """
        if getattr(self._waiting, "busy", False):
            return self._inner.end_wait(patiently)
        lane = self._own_lane()
        if patiently:
            lane.connect()
            return True
        try:
            lane.link.connect_again()
        except (redis.RedisError, OSError):
            return False
        self.outage.over()
        return True

    def connection_options(self) -> dict[str, Any]:
        """How to connect, in redis-py's names, for somebody who does so without redis-py."""
        given = self._pool.connection_kwargs
        names = ("path", "host", "port", "username", "password", "db")
        options = {name: value for name, value in given.items() if name in names or name.startswith("ssl_")}
        tls = issubclass(self._pool.connection_class, redis.SSLConnection)
        return {"host": "localhost", "port": 6379, **options, "tls": tls}

    def link(self) -> Link:
        """A fresh connection for a caller that watches its socket itself and closes it."""
        return Link(self._pool, SLICE + GRACE)

    def _own_lane(self) -> Lane:
        try:
            lane: Lane = self._waiting.lane
        except AttributeError:  # the thread's first wait
            lane = self._waiting.lane = Lane(self.link(), self.outage)
        return lane

    def _explained(self, error: Exception, command: Command) -> Exception:
        return explained(error, command, self.address, self.link)

    def _oldest_deferred(self) -> Command:
        oldest = self._deferred[0]
        return oldest() if callable(oldest) else oldest

    def _flush(self) -> None:
        while self._deferred:
            self._lane.send([self._oldest_deferred()])
            self._deferred.popleft()
        self._turn.begin()  # what was deferred is not given up with the command that carries it

    def _settle(self, but: int = 0) -> None:
        while self._lane.unread > but:
            command = self._lane.oldest
            reply = self._lane.read()
            if isinstance(reply, Exception):
                self._late_error = self._explained(reply, command)

    def _raise_late(self) -> None:
        error, self._late_error = self._late_error, None
        if error is not None:
            raise error


class _Turn:
    """One thread's use of the lane. A class, as it stands around every command: a generator would cost 2 us.

    The lock is not taken here but by a ``with`` of its own. Excluded by that: an interrupt after it was taken and before
    there is anybody to give it back, which can happen in an ``__enter__`` written in Python.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._mark = 0

    def begin(self) -> None:
        """What is sent from here on is given up if it is interrupted."""
        self._mark = self._lane.sent

    __enter__ = begin

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is not None:
            self._lane.abandon(self._mark)


_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


def _unless_failed(reply: Any) -> Any:
    return None if isinstance(reply, Exception) else reply


def _after_fork() -> None:
    for store in list(_STORES):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _address(url: str) -> str:
    # without user, password and options
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
