"""Pipe: two ends between hosts. The methods are the stdlib's ``_ConnectionBase``; what moves the bytes is Redis.

Each end knows its holders, so that the other end can read an end of file: an end is *held* by every Connection object,
on whatever host, that was made or unpickled and not yet closed. Closing the last one, in whatever way its process ends,
lays an empty message, the end-of-file mark, into the peer's list, where it stays.

On Redis, for a pipe ``pipe:ID``: lists ``pipe:ID:a`` and ``pipe:ID:b``, what each end has yet to read; sets
``pipe:ID:a:holders`` and ``pipe:ID:b:holders``; what ``lab.cluster.watch`` names.

Differs from multiprocessing: ``send`` never blocks, as Redis takes what nobody has read yet. ``fileno()`` is a descriptor to
wait on, with ``multiprocessing.connection.wait`` or any selector, not one to read from or to send to another process.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import sys
import threading
from multiprocessing import connection, context
from typing import Any

from lab.cluster import run as runs
from lab.cluster.claimcheck import DISCARD, check_in, luggage_of, receive
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.cluster.watch import Watch
from lab.errors import WrongKey

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

MARK = Script("""
redis.call('LPUSH', KEYS[3], '')
keep(KEYS[3])
ring(KEYS[3])
return 1
""")

END_OF_FILE = b""


_first_watch = threading.Lock()

_ConnectionBase: Any = connection._ConnectionBase  # private, and the stdlib's own way to make a kind of connection


class Connection(_ConnectionBase):  # type: ignore[misc]
    """One end of a pipe.

    On Redis: EVALSHA of a push to send, BLMOVE to receive, LLEN and BLMOVE to poll; SET and GET for what is large.

    Differs from multiprocessing: ``send`` returns when Redis has the message and never waits for a reader; ``fileno`` is to
    wait on, not to read from, and costs a round trip.

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

    def fileno(self) -> int:
        """A descriptor that is readable when a message or the end of file has come; see ``lab.cluster.watch``.

        Raises:
            OSError: The connection is closed.
        """
        self._check_closed()
        with _first_watch:  # excluded: two threads that ask at once, and a descriptor each
            self._watch = self._watch or Watch(self._run, self._inbox)
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

    def _send_bytes(self, buf: Any) -> None:
        message = check_in(self._run, buf)
        if not self._run.eval(SEND, [self._outbox], self._run.seal(self._outbox, *message)):
            if luggage := luggage_of(message):
                self._run.post(DISCARD, [luggage])
            raise BrokenPipeError(errno.EPIPE, "Broken pipe: nobody holds the other end any more")

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        while True:
            (blob,) = self._run.take(self._inbox, None)
            if blob == END_OF_FILE:
                self._run.eval(MARK, [self._inbox])  # for the other holders of this end
                raise EOFError
            if self._watch is not None:
                self._watch.after_read()
            try:
                payload = receive(self._run, self._inbox, blob)
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)
                continue
            if maxsize is not None and len(payload) > maxsize:
                return None
            message = io.BytesIO()
            message.write(payload)
            return message

    def _poll(self, timeout: float | None) -> bool:
        if self._run.store.call("LLEN", self._inbox):
            return True
        if timeout is not None and timeout <= 0:
            return False
        # from the right back to the right: blocks until there is something, and moves nothing
        look = ("BLMOVE", self._inbox, self._inbox, "RIGHT", "RIGHT")
        return (
            self._run.store.wait(lambda left: (*look, left), timeout, recover=lambda _: self._run.check()) is not None
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_closed()
        popen: Any = context.get_spawning_popen()
        owner = popen.process_id if popen is not None else self._run.me
        token = secrets.token_hex(4)
        self._run.post(OPEN, [self._run.key("ends", owner)], self._inbox, token)
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
