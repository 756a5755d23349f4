"""A slot at work: take one process, fork it, and be its host until it ends.

The slot is a prefork child of a Celery worker and has one thread, so that forking from it is safe. It waits in one
``select`` for everything that can happen to the child: output, a signal sent by its parent, its end, the next beat.
"""

from __future__ import annotations

import codecs
import logging
import os
import secrets
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import popen_fork
from typing import Any

import redis

from lab.cluster.fleet import BUSY
from lab.cluster.link import Link
from lab.cluster.process import MAX_AGE, unpack_head
from lab.cluster.run import BURY, MAIL, ROOT, Run
from lab.cluster.script import Script
from lab.cluster.store import GRACE, SLICE, Store
from lab.errors import LabError, LeaseLost, WrongKey
from lab.settings import Settings
from worker.archives import Archives
from worker.child import Child

log = logging.getLogger("crosshost.worker")

CLAIM = Script(
    """
local payload = redis.call('HGET', KEYS[3], 'payload')
local root = alive('root')
if not root or tonumber(root) < now() then return 'its program is gone' end
local known = redis.call('SISMEMBER', base .. 'taken', me) == 1
if not payload and not known then return 'its program has withdrawn it' end
if known and redis.call('HGET', KEYS[3], 'claim') ~= ARGV[6] then
  -- nobody needs it any more, unless whoever claimed it has not heard so yet, and asks again
  if not alive(me) then redis.call('HDEL', KEYS[3], 'payload') end
  return 'taken'
end
redis.call('SADD', base .. 'taken', me)
create(base .. 'taken')
redis.call('HSET', KEYS[3], 'claim', ARGV[6])
redis.call('ZADD', processes, now() + ARGV[3], me)
redis.call('ZADD', ARGV[4], now() + ARGV[3], ARGV[5])
keep(ARGV[4])
local parent = redis.call('HGET', KEYS[3], 'parent')
local children = base .. 'children:' .. string.match(parent, '[^:]+$')
redis.call('SADD', children, me)
create(children)
return {payload, parent, now()}
""",
    numbered=False,
)  # whoever claimed it may claim it again, as the reply may be lost

DROP_PAYLOAD = Script("redis.call('HDEL', KEYS[3], 'payload') return 1")

BEAT = Script(
    """
local root = alive('root')
if not alive(me) or not root or tonumber(root) < now() then return 0 end
redis.call('ZADD', processes, now() + ARGV[3], me)
redis.call('ZADD', ARGV[4], now() + ARGV[3], ARGV[5])
keep(ARGV[4])
return alive(ARGV[6]) and 2 or 1
""",
    numbered=False,
)
ALONE = 1
"""What BEAT replies once the process's parent has ended."""


class Refused(LabError):
    """A message asks for a process that must not be started: forged, altered, replayed or too old."""


class Supervisor:
    """One process in one slot.

    Args:
        settings: The host's settings.
        store: Redis.
        run_id: The run, from the Celery message; unsigned, as it only says where to look.
        process_id: The process, likewise.
        archives: The programs that this slot has been sent.
        redelivered: Whether another slot has had the message before and may have taken the process.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        run_id: str,
        process_id: str,
        archives: Archives,
        redelivered: bool = False,
    ) -> None:
        self._settings, self._store, self._archives = settings, store, archives
        self._run = Run(settings, store, run_id, process_id)
        self._redelivered = redelivered
        self._lease = int(settings.lease * 1000)
        self._parent = ""
        self._popen: Any = None
        self._commands = self._run.key("commands", process_id)
        self._link: Link | None = None
        self._heard_at = 0.0
        self._parent_alive: list[int] = []
        self._decoders: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}

    def supervise(self) -> int | None:
        """Run the process to its end.

        Returns:
            Its exit code, or None if there was nothing to run: withdrawn, its program is gone, or the slot that had the
            message before has taken the process and died.

        Raises:
            Refused: It is forged, altered, replayed or too old, and was not run.
        """
        key = self._run.key("process", self._run.me)
        # Excluded: what the slot's last process could not send any more, as Redis was away, failing this one.
        with suppress(LabError):
            self._store.settle()
        claimed = self._run.eval(CLAIM, [key], self._lease, BUSY, self._busy_name(), secrets.token_hex(8))
        if isinstance(claimed, bytes):
            if claimed == b"taken" and not self._redelivered:
                raise Refused(f"Process {self._run.me} of run {self._run.id} was started before: this is a replay.")
            log.warning("process %s of run %s is not started: %s", self._run.me, self._run.id, claimed.decode())
            return None
        self._run.post(DROP_PAYLOAD, [key])
        self._parent = claimed[1].decode()
        self._run.set_clock(claimed[2])
        try:
            payload = self._run.unseal(key, claimed[0])
            head, _ = unpack_head(payload)
            self._check_age(head)
            archive = self._archives.get(self._run, head["program"]) if head.get("program") else None
        except WrongKey as exc:
            self._mail(
                event="unloadable", process=self._run.me, host=self._settings.host, error=exc.message, lacks=None
            )
            self._bury(1)
            raise Refused(f"Process {self._run.me} of run {self._run.id}: {exc.message}", exc.hint) from exc
        try:
            exitcode = self._host(payload, archive)
        except (
            BaseException
        ):  # the worker is told to stop, by an exit raised here: its parent need not wait for the lease
            if self._popen is not None:
                self._popen.kill()
                self._bury(self._popen.wait(), host_lost=True)
            raise
        self._bury(exitcode)
        return exitcode

    def _check_age(self, head: dict[str, Any]) -> None:
        if abs(age := self._run.server_ms() - head["issued"]) > MAX_AGE:
            raise WrongKey(f"The payload is {age / 1000:.0f} s old; it is a replay, or was forgotten.")

    def _host(self, payload: memoryview, archive: bytes | None) -> int:
        with ExitStack() as stack:
            out, err = stack.enter_context(_pipe()), stack.enter_context(_pipe())
            self._parent_alive = stack.enter_context(_pipe())
            parent = (self._parent_alive[0], self._parent_alive[1])
            self._fork(Child(self._run, payload, archive, out[1], err[1], parent))
            stack.callback(self._popen.close)
            os.close(self._parent_alive.pop(0))
            for name, ends in (("stdout", out), ("stderr", err)):
                os.close(ends.pop())
                os.set_blocking(ends[0], False)
                self._decoders[ends[0]] = (name, codecs.getincrementaldecoder("utf-8")("replace"))
            self._mail(event="started", process=self._run.me, pid=self._popen.pid, host=self._settings.host)
            stack.callback(self._popen.kill)  # if anything below fails: nobody runs unsupervised
            stack.callback(self._unlisten)
            self._loop()
            for fd in (out[0], err[0]):
                self._forward(fd, final=True)
        code = self._popen.wait()
        assert code is not None
        return int(code)

    def _fork(self, child: Child) -> None:
        # Excluded: a signal that reaches the child while it still has the slot's handlers, and is lost in them. The child
        # unblocks when it has handlers of its own.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._popen = popen_fork.Popen(child)  # type: ignore[arg-type]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _loop(self) -> None:
        watched: list[Any] = [self._popen.sentinel, *self._decoders]
        worker = os.getppid()
        self._listen(watched)
        beat_at = last_contact = time.monotonic()
        while True:
            beat_at += self._settings.lease / 3
            while (left := beat_at - time.monotonic()) > 0:
                ready, _, _ = select.select(watched, [], [], left)
                for source in ready:
                    if source in self._decoders and not self._forward(source):
                        watched.remove(source)
                if self._link in ready and not self._obey():
                    watched.remove(self._link)
                    self._link = None
                if self._popen.sentinel in ready:
                    return
            beat_at = time.monotonic()
            try:
                alive = self._beat()
                last_contact = time.monotonic()
                self._listen(watched)
            except (LabError, OSError):
                alive = time.monotonic() - last_contact < self._run.ttl / 1000
            if not alive or os.getppid() != worker:
                self._popen.kill()
                self._popen.wait()
                return

    def _beat(self) -> bool:
        """Renew the lease. Returns False if the process has lost it, or its program is gone."""
        parent = self._parent.rpartition(":")[2]
        answer = self._run.eval(BEAT, [], self._lease, BUSY, self._busy_name(), parent)
        if answer == ALONE and self._parent_alive:
            os.close(self._parent_alive.pop())  # the sentinel of parent_process() becomes readable
        return bool(answer)

    def _listen(self, watched: list[Any]) -> None:
        """Watch for signals from the parent; again after the connection broke."""
        if self._link is not None and time.monotonic() - self._heard_at > SLICE + GRACE:
            watched.remove(
                self._link
            )  # excluded: a connection that has gone silent, over which no signal comes any more
            self._link.close()
            self._link = None
        if self._link is None:
            self._link, self._heard_at = self._store.link(), time.monotonic()
            self._look()
            watched.append(self._link)

    def _look(self) -> None:
        """Have Redis answer when there is a command. It stays in the list until it was obeyed: the answer may be lost."""
        assert self._link is not None
        self._link.send([("BLMOVE", self._commands, self._commands, "LEFT", "LEFT", SLICE)])

    def _unlisten(self) -> None:
        if self._link is not None:
            self._link.close()

    def _obey(self) -> bool:
        """Do what the parent asked for, if it did. Returns False if the connection broke."""
        assert self._link is not None
        try:
            blob, self._heard_at = self._link.read(), time.monotonic()
            if blob is not None:
                self._store.call("LREM", self._commands, 1, blob)
                # Before the next look. Excluded: a signal that is in the list no more and is not sent, as the look failed.
                self._signal(blob)
            self._look()
        except (redis.RedisError, OSError, TypeError, LabError):
            self._link.close()
            return False
        return True

    def _signal(self, blob: bytes) -> None:
        if not blob:
            self._beat()
            return
        try:
            signum = int(bytes(self._run.unseal(self._commands, blob)))
        except (WrongKey, ValueError) as exc:
            log.error("process %s: command refused: %s", self._run.me, exc)
            return
        if self._popen.poll() is None:
            os.kill(self._popen.pid, signum)

    def _forward(self, fd: int, final: bool = False) -> bool:
        """Send on what the child printed. Returns False at the end of the stream."""
        name, decoder = self._decoders[fd]
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                data = None
            if text := decoder.decode(data or b"", final=final and not data):
                self._mail(event="output", process=self._run.me, stream=name, text=text, to=ROOT)
            if data is None or not data:
                return data is None
            if not final:
                return True

    def _mail(self, to: str = "", **event: Any) -> None:
        mailbox = self._run.key("mail", to) if to else self._parent
        try:
            self._run.post(MAIL, [mailbox], self._run.letter(mailbox, **event))
        except LabError as exc:
            log.error("process %s: %s is lost: %s", self._run.me, event["event"], exc)

    def _bury(self, exitcode: int, host_lost: bool = False) -> None:
        letter = self._run.letter(
            self._parent, event="exit", process=self._run.me, exitcode=exitcode, host_lost=host_lost
        )
        # Excluded: a connection that breaks after the burial, when no journal tells any more that this was sent before.
        with suppress(LeaseLost):  # then it is buried already
            self._store.settle()
        bury = self._run.command(BURY, [self._parent], self._run.me, letter, 0, int(exitcode == 0))
        self._store.pipeline([bury, ("ZREM", BUSY, self._busy_name())])

    def _busy_name(self) -> str:
        return f"{self._settings.host} {self._run.me}"


@contextmanager
def _pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)
