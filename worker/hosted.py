"""One process on this host, from its claim to its burial."""

from __future__ import annotations

import codecs
import fcntl
import json
import logging
import os
import secrets
import socket
import struct
import termios
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from lab.cluster.process import MAX_AGE, unpack_head
from lab.errors import KeyLost, LabError, LeaseLost, NotEnoughSlots, RedisFull, WrongKey
from lab.fleet.hosts import BUSY
from lab.store import ledger
from lab.store.backlog import Backlog
from lab.store.claimcheck import too_large
from lab.store.run import MAIL, OUTPUT, ROOT, Run
from lab.store.script import Script
from worker.allowance import Allowance
from worker.archives import Archives, in_memory
from worker.counting import Counted
from worker.dump import Dump
from worker.forker import Forker

log = logging.getLogger("crosshost.worker")

CLAIM = Script(
    """
local size = redis.call('HSTRLEN', KEYS[3], 'payload')
local payload = size > 0 and size <= tonumber(ARGV[7]) and redis.call('HGET', KEYS[3], 'payload')
local root = alive('root')
if not root or tonumber(root) < now() then return 'its program is gone' end
local known = redis.call('SISMEMBER', base .. 'taken', me) == 1
if size == 0 and not known then return 'its program has withdrawn it' end
if known and redis.call('HGET', KEYS[3], 'claim') ~= ARGV[6] then
  -- nobody needs it any more, unless whoever claimed it has not heard so yet, and asks again
  if not alive(me) then redis.call('HDEL', KEYS[3], 'payload') end
  return 'taken'
end
redis.call('SADD', base .. 'taken', me)
create(base .. 'taken')
redis.call('HSET', KEYS[3], 'claim', ARGV[6], 'inbox', KEYS[4], 'since', now())
redis.call('ZADD', processes, now() + ARGV[3], me)
redis.call('ZADD', ARGV[4], now() + ARGV[3], ARGV[5])
keep(ARGV[4])
local parent = redis.call('HGET', KEYS[3], 'parent')
local children = base .. 'children:' .. string.match(parent, '[^:]+$')
redis.call('SADD', children, me)
create(children)
return {payload or size, parent, now()}
""",
    numbered=False,
)  # whoever claimed it may claim it again, as the reply may be lost

STARTED = Script(
    """
if alive(me) then redis.call('HSET', KEYS[4], 'pid', ARGV[4], 'name', ARGV[5]) end
push(KEYS[3], ARGV[3])
return 1
"""
)
"""Tell the parent, and whoever looks at the fleet (``lab.watching``)."""

DROP_PAYLOAD = Script("redis.call('HDEL', KEYS[3], 'payload') return 1")


def claimed_here(run: Run) -> str:
    """The mailbox of the parent of a process, if a supervisor of this host has claimed it; else empty."""
    inbox, parent = run.store.call("HMGET", run.key("process", run.me), "inbox", "parent")
    ours = run.key("commands", f"{run.settings.host}/").encode()
    return parent.decode() if inbox and parent and inbox.startswith(ours) else ""


class Refused(LabError):
    """A message asks for a process that must not be started: forged, altered, replayed or too old."""


class Hosted:
    """One process on this host.

    Args:
        run: The run that it belongs to, as this process.
        number: By which the worker knows it.
        allowance: What the processes of its run may still print on this host.

    Attributes:
        pid: Its id on this host, 0 before the fork.
        parent: The mailbox of its parent.
        stopped: Whether it is stopped (SIGSTOP), so that its lease is not renewed.
        lost: Whether its host is what ends it.
        resumed_at: When it last went on, by ``time.monotonic()``.
        heard_at: When Redis was last heard to know it, likewise.
        held_back: Whether its output is not read, as the program has not shown what was printed before.
        dump: What it writes its threads' stacks to; None before the fork.
        counted: What it has counted; None before the fork.
        share: Over which it asks for what the processes of this host share (``worker.shares``).
        said: What it has said there, up to the end of a line.
    """

    def __init__(self, run: Run, number: int, allowance: Allowance) -> None:
        self.run, self.number, self._allowance = run, number, allowance
        self.pid = 0
        self.parent = ""
        self.stopped = self.lost = self._entered = False
        self.resumed_at = self.heard_at = 0.0
        self.dump: Dump | None = None
        self.counted: Counted | None = None
        self.said = b""
        self._ledger: int | None = None
        self.share, self._its_share = socket.socketpair()
        self.share.setblocking(False)
        self._payload: Any = None
        self._parent_alive: list[int] = []
        self._decoders: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        self.held_back = False
        self._unshown = Backlog(run, run.key("mail", ROOT), OUTPUT)

    @property
    def busy_name(self) -> str:
        """What it is called among the processes of all hosts."""
        return f"{self.run.settings.host} {self.run.me} {self.run.id}"

    @property
    def parent_id(self) -> str:
        """The id of its parent in the run."""
        return self.parent.rpartition(":")[2]

    @property
    def outputs(self) -> list[int]:
        """The descriptors from which its output is read, as long as it has not closed them."""
        return list(self._decoders)

    def claim(self, inbox: str, redelivered: bool) -> bool:
        """Take it for this host.

        Args:
            inbox: The list on which this host hears of signals for it.
            redelivered: Whether another host has had the message before and may have taken the process.

        Returns:
            False if there is nothing to run: withdrawn, its program is gone, or the host that had the message before has
            taken the process and died.

        Raises:
            Refused: It is a replay.
        """
        run = self.run
        # Excluded: what the last process that used this connection could not send any more, as Redis was away.
        with suppress(LabError):
            run.store.settle()
        key, lease = run.key("process", run.me), int(run.settings.lease * 1000)
        most = run.settings.message_size
        claim = partial(run.eval, CLAIM, [key, inbox], lease, BUSY, self.busy_name, secrets.token_hex(8), most)
        try:
            claimed = claim()
        except KeyLost:  # it is put right by now
            claimed = claim()
        if isinstance(claimed, bytes):
            if claimed == b"taken" and not redelivered:
                raise Refused(f"Process {run.me} of run {run.id} was started before: this is a replay.")
            log.warning("process %s of run %s is not started: %s", run.me, run.id, claimed.decode())
            return False
        run.post(DROP_PAYLOAD, [key])
        self._payload, self.parent = claimed[0], claimed[1].decode()
        run.set_clock(claimed[2])
        return True

    def fork(self, archives: Archives, forker: Forker) -> None:
        """Start what was claimed.

        Args:
            archives: The programs that this host has been sent.
            forker: Forks.

        Raises:
            Refused: It is forged, altered, too old or too large, or its program has as many here as it may.
            OSError: The forker is gone, or the host can have no more processes.
        """
        run = self.run
        try:
            key, most = run.key("process", run.me), run.settings.message_size
            if isinstance(self._payload, int):
                raise too_large(key, str(self._payload), most)
            payload = run.unseal(key, self._payload)
            self._enter()
            head, _ = unpack_head(payload)
            self._check_age(head)
            archive = archives.get(run, head["program"]) if head.get("program") else None
        except WrongKey as exc:
            self._mail(event="output", process=run.me, stream="stderr", to=ROOT,
                       text=f"crosshost: host {run.settings.host}: {exc}\n")  # fmt: skip
            raise self._refused("unloadable", exc, error=exc.message, lacks=None) from exc
        except NotEnoughSlots as exc:
            raise self._refused("full", exc, message=f"Host {run.settings.host}: {exc.message}", hint=exc.hint) from exc
        self._payload = None
        with ExitStack() as theirs:
            out, err, parent, dump = os.pipe(), os.pipe(), os.pipe(), os.pipe()
            self._ledger = in_memory(bytes(ledger.SIZE))
            files = [in_memory(payload), in_memory(b"") if archive is None else os.dup(archive)]
            for fd in (*files, out[1], err[1], parent[0], dump[1]):
                theirs.callback(os.close, fd)
            self._parent_alive = [parent[1]]
            self.dump = Dump(dump[0])
            for fd, name in ((out[0], "stdout"), (err[0], "stderr")):
                os.set_blocking(fd, False)
                self._decoders[fd] = (name, codecs.getincrementaldecoder("utf-8")("surrogateescape"))
            self.counted = Counted()
            theirs.callback(self.counted.given)
            theirs_too = (self._its_share.fileno(), self.counted.file, self._ledger)
            self.pid = forker.fork(run, [*files, out[1], err[1], parent[0], dump[1], *theirs_too])
        self._its_share.close()
        self._say_started(head["prepare"]["name"])

    def _say_started(self, name: str) -> None:
        run, key = self.run, self.run.key("process", self.run.me)
        letter = run.letter(self.parent, event="started", process=run.me, pid=self.pid, host=run.settings.host)
        try:
            run.post(STARTED, [self.parent, key], letter, self.pid, run.seal(f"{key}:name", name.encode()))
        except LabError as exc:
            log.error("process %s: that it has started is lost: %s", run.me, exc)

    def _refused(self, event: str, exc: LabError, **why: Any) -> Refused:
        """Tell its parent why this host does not start it; the error to raise."""
        self._mail(event=event, process=self.run.me, host=self.run.settings.host, **why)
        return Refused(f"Process {self.run.me} of run {self.run.id}: {exc.message}", exc.hint)

    def _enter(self) -> None:
        self._allowance.enter()
        self._entered = True

    def _check_age(self, head: dict[str, Any]) -> None:
        if abs(age := self.run.server_ms() - head["issued"]) > MAX_AGE:
            raise WrongKey(f"The payload is {age / 1000:.0f} s old; it is a replay, or was forgotten.")

    def may_print(self) -> bool:
        """Whether there is room for output now. If not, it waits in its pipe, and this host is told when there is."""
        try:
            return self._unshown.has_room(self.run.me)
        except RedisFull:
            return False  # asked again at the next beat
        except LabError:
            return True  # what cannot be sent on is lost, and logged

    def forward(self, fd: int) -> bool:
        """Send on what it printed, as far as its program may. Returns False at the end of the stream."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        self._print(fd, data)
        return bool(data)

    def _print(self, fd: int, data: bytes) -> None:
        name, decoder = self._decoders[fd]
        kept = self._allowance.of(len(data))
        if text := decoder.decode(data[:kept], final=not data):
            self._mail(event="output", process=self.run.me, stream=name, text=text, to=ROOT)
        if kept < len(data) and (last := self._allowance.last_words()):
            self._mail(event="output", process=self.run.me, stream="stderr", text=last, to=ROOT)

    def close_output(self, fd: int) -> None:
        """Read no more from a descriptor."""
        del self._decoders[fd]
        os.close(fd)

    def wanted(self, blob: bytes) -> list[str]:
        """What somebody with the key wants of it: a signal's number, or "stack" and a ticket; nothing if it is refused."""
        try:
            return bytes(self.run.unseal_once(self.run.key("commands", self.run.me), blob)).decode().split()
        except (WrongKey, ValueError) as exc:
            log.error("process %s: command refused: %s", self.run.me, exc)
            return []

    def answer(self, ticket: str, threads: list[dict[str, Any]]) -> None:
        """Tell whoever asked where it is (``lab.watching.stack``)."""
        key = self.run.key("stack", ticket)
        said = {"host": self.run.settings.host, "pid": self.pid, "stopped": self.stopped, "threads": threads}
        try:
            self.run.post(MAIL, [key], self.run.seal(key, json.dumps(said).encode()))
        except LabError as exc:
            log.error("process %s: where it is, is not told: %s", self.run.me, exc)

    def parent_ended(self) -> None:
        """Have the sentinel of its ``parent_process()`` become readable."""
        while self._parent_alive:
            os.close(self._parent_alive.pop())

    def tell_printed(self) -> None:
        """Send on what it has printed until now, and tell its parent that this was all."""
        if not self.held_back:
            self._send_printed()
        self._mail(event="printed", process=self.run.me)

    def drain(self) -> None:
        """Send on what it printed until its end."""
        self._send_printed()
        for fd in self.outputs:
            self._print(fd, b"")

    def _send_printed(self) -> None:
        """Send on what lies in its pipes.

        Not until the end of the stream: somebody that it left behind may hold that open, and print without end. Whether
        there is room for it or not: it is no more than pipes hold.
        """
        for fd in self.outputs:
            left = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
            with suppress(BlockingIOError):
                while left > 0 and (data := os.read(fd, min(left, 1 << 16))):
                    left -= len(data)
                    self._print(fd, data)

    def bury(self, exitcode: int, host_lost: bool) -> None:
        """Tell its run and its parent that it has ended, and have done with it.

        Args:
            exitcode: Its exit code.
            host_lost: Whether it ended because its host did, which is no doing of the process.

        Raises:
            LabError: Redis is not there to be told; its lease will lapse.
        """
        run = self.run
        # Excluded: a connection that breaks after the burial, when no journal tells any more that this was sent before.
        with suppress(LeaseLost, KeyLost):  # then it is buried already, or what it printed last is lost
            run.store.settle()
        run.store.post("ZREM", BUSY, self.busy_name)
        got = "" if self._ledger is None else ledger.read(self._ledger)
        bury = partial(run.bury, run.me, self.parent, exitcode, host_lost, got=got)
        try:
            bury()
        except KeyLost:  # what was damaged is put right by now, and to bury it twice does no harm
            bury()

    def close(self) -> None:
        """Close what is open for it on this side, and have it counted no more."""
        if self._entered:
            self._entered = False
            self._allowance.leave()
        self.parent_ended()
        self.share.close()
        self._its_share.close()
        if self._ledger is not None:
            os.close(self._ledger)
            self._ledger = None
        if self.dump is not None:
            self.dump.close()
        if self.counted is not None:
            self.counted.close()
        for fd in self.outputs:
            self.close_output(fd)

    def _mail(self, to: str = "", **event: Any) -> None:
        mailbox = self.run.key("mail", to) if to else self.parent
        try:
            letter = self.run.letter(mailbox, **event)
            if to:
                self._unshown.sent(len(letter))
            self.run.post(MAIL, [mailbox], letter)
        except LabError as exc:
            log.error("process %s: %s is lost: %s", self.run.me, event["event"], exc)
