"""Pipe: two ends between hosts. The methods are the stdlib's ``_ConnectionBase``; what moves the bytes is Redis.

Each end knows its holders, so that the other end can read an end of file: an end is *held* by every Connection object,
on whatever host, that was made or unpickled and not yet closed. Closing the last one, in whatever way its process ends,
lays an empty message, the end-of-file mark, into the peer's list, where it stays. A script cannot seal it, so a mark is
believed only if nobody holds the other end, and only when all else was read.

On Redis, for a pipe ``pipe:ID``: lists ``pipe:ID:a`` and ``pipe:ID:b``, what each end has yet to read; sets
``pipe:ID:a:holders`` and ``pipe:ID:b:holders``; what ``lab.cluster.watch`` and ``lab.store.backlog`` name.

Differs from multiprocessing: ``send`` blocks when 8 MiB lie there that nobody has read, not at 64 KiB. ``fileno()`` is a
descriptor to wait on, with ``multiprocessing.connection.wait`` or any selector, not one to read from or to send to another
process.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import sys
import threading
import time
from multiprocessing import connection, context, reduction
from typing import Any

from lab import buffers
from lab.cluster.watch import Watch
from lab.errors import KeyLost, WrongKey
from lab.store import run as runs
from lab.store.ahead import Ahead
from lab.store.backlog import Backlog
from lab.store.claimcheck import DISCARD, check_in, luggage_of, receive, sealed
from lab.store.run import Run
from lab.store.script import Script
from lab.store.store import SLICE
from lab.store.wire import BLOCK, PLAIN, Once, is_block

OPEN = Script("""
for i = 3, #ARGV, 2 do
  redis.call('SADD', ARGV[i] .. ':holders', ARGV[i + 1])
  create(ARGV[i] .. ':holders')
  create(ARGV[i])
  redis.call('SADD', KEYS[3], ARGV[i] .. ' ' .. ARGV[i + 1])
end
create(KEYS[3])
return 1
""")

ADOPT = Script("""
redis.call('SREM', KEYS[3], ARGV[3])
redis.call('SADD', KEYS[4], ARGV[3])
create(KEYS[4])
return 1
""")

HANG_UP = Script("""
redis.call('SREM', KEYS[4], KEYS[3] .. ' ' .. ARGV[3])
hang_up(KEYS[3], ARGV[3])
return 1
""")

HOLD = Script(
    """
if redis.call('SCARD', KEYS[3] .. ':holders') ~= 1 then return false end
return hold(KEYS[3], ARGV[3], ARGV[4])
""",
    fenced=True,
    numbered=False,
)
LAY_BACK = Script("lay_back(KEYS[3], tonumber(ARGV[3]))", numbered=False)

SEND = Script(
    """
local there = redis.call('EXISTS', KEYS[3] .. ':holders', KEYS[3] .. ':watchers')  -- these never without those
if there == 0 then return 0 end
if redis.call('RPUSH', KEYS[3], ARGV[3]) == 1 then redis.call('PEXPIRE', KEYS[3], ttl) end
if there == 2 then ring(KEYS[3]) end
return 1
""",
    fenced=True,
)

STILL_OPEN = Script(
    """
if redis.call('SISMEMBER', KEYS[3] .. ':holders', ARGV[3]) == 0 then return -1 end
if redis.call('LLEN', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[4] .. ':holders') == 0 then return 0 end
return 1
""",
    numbered=False,
)
"""Whether more can come to an end: 0 if nobody holds the other, -1 if Redis does not know that this one is held."""

MARK = Script("""
-- Excluded: a mark that somebody else has laid there, before the end or in the middle of what was sent.
if redis.call('EXISTS', KEYS[4] .. ':holders') == 1 then return 0 end
redis.call('LREM', KEYS[3], 0, '')
redis.call('RPUSH', KEYS[3], '')  -- for the other holders of this end
keep(KEYS[3])
ring(KEYS[3])
return redis.call('LLEN', KEYS[3]) == 1 and 1 or 0
""")
"""Whether a mark that was taken is the end of the file."""

END_OF_FILE = b""

STREAK, CLOSELY = 64, 0.01
"""Messages, and seconds, after which a sender waits again to hear whether somebody holds the other end."""

_first_watch = threading.Lock()

_ConnectionBase: Any = connection._ConnectionBase  # private, and the stdlib's own way to make a kind of connection


class _Inbox(Ahead):
    """What an end reads. It is held ahead if nobody else holds the end."""

    def _take_held(self, many: int) -> list[bytes] | None:
        taken: list[bytes] | None = self._run.eval(HOLD, [self._key], self.got, many)
        return taken

    def lay_back(self) -> None:
        """Lay back what is held, and hold nothing any more."""
        with self.lock:
            if self._held or self._unheard:  # or what is held only Redis knows, as the reply that tells it was lost
                self._run.eval(LAY_BACK, [self._key], self.got)
            self.drop()


class Connection(_ConnectionBase):  # type: ignore[misc]
    """One end of a pipe.

    On Redis: EVALSHA of a push to send, BLMOVE to receive, several at once if nobody else holds this end; LLEN and BLMOVE to
    poll; SET and GET for what is large.

    Differs from multiprocessing: ``send`` waits for a reader only if 8 MiB are there already, or as much as one message. It
    returns when Redis has the message, or knows that it comes: of messages that follow each other at once, up to 64 may be on
    their way when the other end is closed, before a send says so. ``fileno`` is to wait on, not to read from, and costs a
    round trip.

    Args:
        inbox: The list that this end reads.
        outbox: The list that the peer reads.
        token: This object's name among the holders of the end.
    """

    def __init__(self, run: Run, inbox: str, outbox: str, token: str, readable: bool, writable: bool) -> None:
        super().__init__(0, readable, writable)
        self._run, self._inbox, self._outbox, self._token = run, inbox, outbox, token
        self._pid = os.getpid()
        self._watch: Watch | None = None
        self._once = Once()
        self._unread, self._sent = Backlog(run, inbox), Backlog(run, outbox)
        self._ahead = _Inbox(run, inbox)
        self._streak, self._heard, self._arrived = 0, -1, 0.0

    def fileno(self) -> int:
        """A descriptor that is readable when a message or the end of file has come; see ``lab.cluster.watch``.

        Raises:
            OSError: The connection is closed.
        """
        self._check_closed()
        with _first_watch:  # excluded: two threads that ask at once, and a descriptor each
            if self._watch is None:
                self._ahead.lay_back()  # a watch looks into Redis
                self._watch = Watch(self._run, self._inbox)
        return self._watch.fileno()

    def __del__(self) -> None:
        # A finalizer may run in the middle of another command of this thread, so it must not wait for the lane.
        if self._handle is not None and self._pid == os.getpid():
            self._run.store.defer(*self._hang_up())

    def _close(self) -> None:
        if self._pid == os.getpid():  # a forked copy is not among the holders
            self._run.store.call(*self._hang_up())
            if self._watch is not None:
                self._watch.close()

    def _hang_up(self) -> tuple[Any, ...]:
        return self._run.command(HANG_UP, [self._inbox, self._run.key("ends", self._run.me)], self._token)

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._check_closed()
        self._check_writable()
        parts = buffers.dumps(obj)
        self._send_parts(parts, PLAIN if buffers.is_pickle(parts[0]) else BLOCK)

    def recv(self) -> Any:
        """Receive the next object.

        Raises:
            EOFError: Nobody holds the other end any more, and nothing is left to receive.
        """
        self._check_closed()
        self._check_readable()
        payload, is_a_block = self._receive()
        return buffers.loads(payload) if is_a_block else reduction.ForkingPickler.loads(payload)

    def _send_bytes(self, buf: Any) -> None:
        self._send_parts([buf], PLAIN)

    def _send_parts(self, parts: list[Any], kind: int) -> None:
        self._sent.wait(buffers.size(parts))  # until the last holder of the other end has gone, at the most
        message = check_in(self._run, *parts)
        send = sealed(self._run, self._outbox, message, kind=kind)
        if not luggage_of(message) and self._goes_on():
            self._run.post(SEND, [self._outbox], send)
            return
        there = self._run.eval(SEND, [self._outbox], send)
        self._streak, self._arrived, self._heard = 0, time.monotonic(), self._run.store.heard if there else -1
        if not there:
            if luggage := luggage_of(message):
                self._run.post(DISCARD, [luggage])
            raise BrokenPipeError(errno.EPIPE, "Broken pipe: nobody holds the other end any more")

    def _goes_on(self) -> bool:
        """Whether a send need not be waited for: it follows closely on one that arrived, and nothing was heard since.

        So nobody can have told this process, through Redis, that the other end was closed, before it sends to nobody.
        """
        close = time.monotonic() - self._arrived < CLOSELY
        self._streak += 1
        return close and self._heard == self._run.store.heard and self._streak < STREAK

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        payload, is_a_block = self._receive()
        if is_a_block:  # what ``send`` has sent is a pickle to whoever asks for its bytes, as in multiprocessing
            payload = reduction.ForkingPickler.dumps(buffers.loads(payload))
        if maxsize is not None and len(payload) > maxsize:
            return None
        message = io.BytesIO()
        message.write(payload)
        return message

    def _receive(self) -> tuple[memoryview, bool]:
        """The next message, and whether it is a block."""
        while True:
            blob = self._ahead.take(SLICE, self._unread.before_take())
            if blob is None:
                if self._has_ended():
                    raise EOFError
                continue
            if blob == END_OF_FILE and self._run.eval(MARK, [self._inbox, self._outbox]) and not len(self._ahead):
                raise EOFError
            if self._watch is not None:
                self._watch.after_read()
            if blob == END_OF_FILE:
                continue
            try:
                payload = receive(self._run, self._inbox, blob)
                self._unread.took(len(payload))
                self._once.check(self._inbox, blob)
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)
                continue
            except BaseException:
                # Excluded: a ticket taken and its message not read, as Redis went away or the user interrupted between.
                self._ahead.put_back(blob)
                raise
            return payload, is_block(blob)

    def _poll(self, timeout: float | None) -> bool:
        self._ahead.hear()
        if len(self._ahead) or self._run.store.call("LLEN", self._inbox):
            return True
        if timeout is not None and timeout <= 0:
            return False
        # from the right back to the right: blocks until there is something, and moves nothing
        look = ("BLMOVE", self._inbox, self._inbox, "RIGHT", "RIGHT")

        def recover(_applied: int) -> None:
            self._run.check()

        def instead() -> list[Any] | None:
            return [b""] if self._run.store.call("LLEN", self._inbox) else None

        deadline, wait = None if timeout is None else time.monotonic() + timeout, self._run.store.wait
        while deadline is None or time.monotonic() < deadline:
            left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if wait(lambda left: (*look, left), left, recover=recover, instead=instead) is not None:
                return True
            if left == SLICE and self._has_ended():
                return True
        return False

    def _has_ended(self) -> bool:
        """Whether nothing can come any more, although there is no end-of-file mark: somebody has deleted that.

        Raises:
            KeyLost: Redis does not know that this end is open.
        """
        state = self._run.eval(STILL_OPEN, [self._inbox, self._outbox], self._token)
        if state < 0:
            raise KeyLost.gone(f"{self._inbox}:holders", "that this end of a pipe is open")
        return bool(state == 0)

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_closed()
        popen: Any = context.get_spawning_popen()
        owner = popen.process_id if popen is not None else self._run.me
        token = secrets.token_hex(4)
        with self._ahead.lock:
            self._run.post(OPEN, [self._run.key("ends", owner)], self._inbox, token)
            self._ahead.lay_back()  # the other holder may read, too
            self._ahead.allowed = self._watch is None  # and end before this one: HOLD asks
        return _rebuild, (owner, self._inbox, self._outbox, token, self._readable, self._writable)


def _rebuild(owner: str, inbox: str, outbox: str, token: str, readable: bool, writable: bool) -> Connection:
    run = runs.current()
    assert run is not None
    if owner != run.me:
        run.post(ADOPT, [run.key("ends", owner), run.key("ends", run.me)], f"{inbox} {token}")
    return Connection(run, inbox, outbox, token, readable, writable)


def Pipe(run: Run, duplex: bool = True) -> tuple[Connection, Connection]:
    """A pair of connected ends; the first only reads and the second only writes if not duplex."""
    name = run.new_name("pipe")
    a, b = f"{name}:a", f"{name}:b"
    tokens = secrets.token_hex(4), secrets.token_hex(4)
    run.post(OPEN, [run.key("ends", run.me)], a, tokens[0], b, tokens[1])
    return Connection(run, a, b, tokens[0], True, duplex), Connection(run, b, a, tokens[1], duplex, True)
