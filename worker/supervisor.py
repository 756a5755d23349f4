"""The supervisor of a host: it takes processes, has them forked, and is their host until they end.

One for each host, beside its Celery worker. It waits in one ``select`` for all that can happen to any of them: a start that
the worker passes on, output, a signal sent by a parent, an end that the forker reports (``worker.forker``), the next beat.

A process that is stopped (SIGSTOP, Ctrl-Z) does not live, as far as its run is concerned: its lease is not renewed until it
goes on. So the processes of one host can be frozen one by one, and whoever waits for one of them does not wait for ever.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from onloan.logs import Neutral

from lab.errors import LabError
from lab.fleet.counts import REDELIVERED
from lab.fleet.hosts import BUSY
from lab.settings import Settings
from lab.store.run import Run
from lab.store.script import Script
from lab.store.store import Store
from worker import copies
from worker.allowance import Allowances
from worker.archives import Archives
from worker.counting import Counting
from worker.dump import SIGNAL
from worker.forker import Forker, settle_in
from worker.hosted import Hosted, Refused
from worker.inbox import Inbox
from worker.shares import Shares

log = logging.getLogger("crosshost.worker")

BEAT = Script(
    """
local root = alive('root')
local gone, found, run = not root or tonumber(root) < now(), {}, string.match(base, '{(.*)}')
for i = 6, #ARGV, 2 do
  local process, parent = ARGV[i], ARGV[i + 1]
  local state = 0
  if not gone and alive(process) then
    redis.call('ZADD', processes, now() + ARGV[3], process)
    redis.call('ZADD', ARGV[4], now() + ARGV[3], ARGV[5] .. ' ' .. process .. ' ' .. run)
    state = alive(parent) and 2 or 1
  end
  found[#found + 1] = state
end
keep(ARGV[4])
return found
""",
    numbered=False,
)
DEAD, ALONE = 0, 1
"""What BEAT says of a process that is dead to its run, as it lapsed or its program is gone; and of one whose parent ended."""

TOGETHER = 100
"""Processes whose leases one script renews."""


def _log_plainly() -> None:
    """Have this process log to standard error by itself, as it was forked before Celery's logging was there.

    Excluded: what a forged message says of itself reaching a terminal as it is.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(asctime)s: %(levelname)s/%(process)d] %(message)s"))
    handler.addFilter(Neutral())
    ours = logging.getLogger("crosshost")
    ours.handlers, ours.propagate = [handler], False


class Supervisor:
    """All processes of one host.

    Args:
        settings: The host's settings.
        worker: The socket to the Celery worker of the host: lines of JSON, starts to this side, what becomes of them to
            the other. Its end is the end of the host.
    """

    def __init__(self, settings: Settings, worker: socket.socket) -> None:
        self._settings, self._worker = settings, worker
        self._store = Store(settings.broker_url, settings.outage)
        self._spare: list[Store] = []
        """Connections that no process uses now: two must not share one, as what one sent last may fail at the other."""
        self._archives, self._allowances = Archives(), Allowances(settings)
        self._shares = Shares(settings, self._store)
        self._counting = Counting(self._store, settings.host)
        self._hosted: dict[int, Hosted] = {}
        """By process id on this host."""
        self._inboxes: dict[str, Inbox] = {}
        """By run."""
        self._inbox_name = f"{settings.host}/{secrets.token_hex(4)}"
        self._selector = selectors.DefaultSelector()
        self._received = b""
        self._starts: deque[dict[str, Any]] = deque()
        self._beat_at = time.monotonic()
        self._stopping = False

    def _new_store(self) -> Store:
        # Redis is away for all of them at once. Excluded: waiting for it once for each process that ends meanwhile.
        store = Store(self._settings.broker_url, outage=self._store.outage)
        store.shortage.patience = 0.0  # nobody's output is worth holding up the others
        return store

    def run(self) -> None:
        """Serve until the worker is gone, or says that the host stops."""
        _log_plainly()
        copies.HERE = copies.Copies()
        # First of all: what is touched from here on is not what the processes share.
        self._forker = Forker(self._settings, self._forsake)
        settle_in()
        self._watch(self._forker.socket, self._reap)
        self._watch(self._worker, self._receive)
        try:
            self._loop()
        finally:
            self._end_all()

    def _loop(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.0 if self._starts else max(0.0, self._beat_at - time.monotonic())):
                # Excluded: reading what an earlier event of this round has closed.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
                    self._beat_if_due()
            if self._starts:
                self._start(**self._starts.popleft())
            if self._forker.pending:  # read while the pid of another was waited for
                self._reap()
            self._beat_if_due()

    def _beat_if_due(self) -> None:
        # After each event. Excluded: leases that lapse while many starts or ends are done one after the other.
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._settings.lease / 3
            self._beat()

    def _watch(self, source: Any, react: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, react)

    # --- what the worker says

    def _receive(self) -> None:
        data = self._worker.recv(1 << 16)
        if not data:
            self._stopping = True
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said["do"] == "stop":
                self._stopping = True
            elif said["do"] == "kill" and (hosted := self._hosted.get(said["pid"])):
                self._end(hosted)
            elif said["do"] == "bury":
                self._bury_for_another(*said["process"])
            elif said["do"] == "start":
                self._starts.append(said["process"])

    def _tell(self, number: int, event: str, **more: Any) -> None:
        with suppress(OSError):  # the worker is gone; so are we, at the next look
            self._worker.sendall(json.dumps({"number": number, "event": event, **more}).encode() + b"\n")

    def _start(self, number: int, run: str, process: str, redelivered: bool) -> None:
        if redelivered:
            self._counting.one(REDELIVERED)
        store = self._spare.pop() if self._spare else self._new_store()
        allowance = self._allowances.of(run)
        hosted = Hosted(Run(self._settings, store, run, process), number, allowance)
        try:
            if not hosted.claim(self._inbox(hosted.run), redelivered):
                self._tell(number, "nothing")
                self._put_away(hosted)
                return
            hosted.fork(self._archives, self._forker)
        except (LabError, OSError) as exc:
            hosted.lost = isinstance(exc, OSError)
            self._tell(number, "refused" if isinstance(exc, Refused) else "failed", reason=str(exc))
            self._bury(hosted, 1)
            return
        hosted.heard_at = time.monotonic()
        self._hosted[hosted.pid] = hosted
        self._watch_output(hosted)
        assert hosted.dump is not None
        self._watch(hosted.dump, partial(self._dumped, hosted))
        self._watch(hosted.share, partial(self._asked, hosted))
        self._tell(number, "started", pid=hosted.pid, parent=hosted.parent)

    # --- what the processes do

    def _watch_output(self, hosted: Hosted) -> None:
        for fd in hosted.outputs:
            self._watch(fd, partial(self._forward, hosted, fd))

    def _unwatch_output(self, hosted: Hosted) -> None:
        if not hosted.held_back:
            for fd in hosted.outputs:
                self._selector.unregister(fd)

    def _forward(self, hosted: Hosted, fd: int) -> None:
        if not hosted.may_print():
            self._unwatch_output(hosted)
            hosted.held_back = True
        elif not hosted.forward(fd):
            self._selector.unregister(fd)
            hosted.close_output(fd)

    def _go_on(self, hosted: Hosted) -> None:
        """Read again what was held back, if there is room."""
        if hosted.held_back and hosted.may_print():
            hosted.held_back = False
            self._watch_output(hosted)

    def _dumped(self, hosted: Hosted) -> None:
        assert hosted.dump is not None
        if not hosted.dump.read():
            self._selector.unregister(hosted.dump)
            hosted.dump.close()
        tickets, threads = hosted.dump.answers()
        for ticket in tickets:
            hosted.answer(ticket, threads)

    def _asked(self, hosted: Hosted) -> None:
        if not self._shares.read(hosted):
            self._stop_sharing(hosted)

    def _stop_sharing(self, hosted: Hosted) -> None:
        if hosted.share.fileno() >= 0:
            self._selector.unregister(hosted.share)
            hosted.share.close()
        self._shares.left(hosted)

    def _reap(self) -> None:
        try:
            changes = self._forker.changes()
        except OSError:
            self._forker_lost()
            return
        for pid, status in changes:
            if hosted := self._hosted.get(pid):
                self._changed(hosted, status)
                self._beat_if_due()

    def _changed(self, hosted: Hosted, status: int) -> None:
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            hosted.stopped, hosted.resumed_at = os.WIFSTOPPED(status), time.monotonic()
            if hosted.stopped:
                self._shares.stopped(hosted)
            return
        del self._hosted[hosted.pid]
        self._stop_sharing(hosted)
        self._unwatch_output(hosted)
        if hosted.dump is not None and not hosted.dump.closed:
            self._selector.unregister(hosted.dump)
        hosted.drain()
        self._bury(hosted, os.waitstatus_to_exitcode(status))

    def _forker_lost(self) -> None:
        """The forker was killed, and its processes with it: tell their parents, and go on with another."""
        log.error("the forker of this host has ended; its %d processes with it", len(self._hosted))
        self._selector.unregister(self._forker.socket)
        self._forker.close()
        for hosted in list(self._hosted.values()):
            with suppress(ProcessLookupError):
                os.kill(hosted.pid, signal.SIGKILL)  # where the kernel has not done it
            hosted.lost = True
            self._changed(hosted, signal.SIGKILL)
        self._forker = Forker(self._settings, self._forsake)
        self._watch(self._forker.socket, self._reap)

    def _bury(self, hosted: Hosted, exitcode: int) -> None:
        """End with a process, whatever became of it; the worker hears of it last."""
        try:
            if hosted.parent:  # else it was not claimed
                hosted.bury(exitcode, hosted.lost)
        except (LabError, OSError) as exc:
            log.error("process %s: its end is not told, its lease will lapse: %s", hosted.run.me, exc)
        if hosted.pid:
            self._tell(hosted.number, "ended", exitcode=exitcode)
        self._put_away(hosted)

    def _bury_for_another(self, run_id: str, process: str, parent: str) -> None:
        """Tell the end of a process whose supervisor was killed while Redis was away."""
        run = Run(self._settings, self._store, run_id, process)
        try:
            run.bury(process, parent, -signal.SIGKILL, host_lost=True)
        except (LabError, OSError) as exc:
            log.error("process %s: its end is not told, its lease will lapse: %s", process, exc)

    def _put_away(self, hosted: Hosted) -> None:
        if hosted.counted is not None:
            self._counting.ended(hosted.counted)
        hosted.close()
        self._spare.append(hosted.run.store)
        run_id = hosted.run.id
        if all(other.run.id != run_id for other in self._hosted.values()) and (
            inbox := self._inboxes.pop(run_id, None)
        ):
            self._hear(inbox, False)

    # --- leases

    def _beat(self) -> None:
        """Renew the leases of those that live; end those that are dead to their run."""
        by_run: dict[str, list[Hosted]] = {}
        for hosted in self._hosted.values():
            self._go_on(hosted)  # if whoever was to tell us has not
            if not hosted.stopped:
                by_run.setdefault(hosted.run.id, []).append(hosted)
        for of_one_run in by_run.values():
            for at in range(0, len(of_one_run), TOGETHER):
                self._renew(of_one_run[at : at + TOGETHER])
        self._shares.look()
        with suppress(LabError, OSError, redis.RedisError):  # the next beat tries again
            self._counting.tell(hosted.counted for hosted in self._hosted.values() if hosted.counted is not None)
        for inbox in self._inboxes.values():
            if inbox.link is None or inbox.silent:
                self._hear(inbox, True)

    def _renew(self, together: list[Hosted]) -> None:
        run = Run(self._settings, self._store, together[0].run.id, "supervisor")
        lease = int(self._settings.lease * 1000)
        names = [name for hosted in together for name in (hosted.run.me, hosted.parent_id)]
        try:
            states = run.eval(BEAT, [], lease, BUSY, self._settings.host, *names)
        except (LabError, OSError):
            for hosted in together:
                if time.monotonic() - hosted.heard_at > run.ttl / 1000:
                    self._end(hosted)
            return
        for hosted, state in zip(together, states, strict=True):
            if state != DEAD:
                hosted.heard_at = time.monotonic()
            # Excluded: killing a process that has just been thawed before its next command could tell it why.
            elif time.monotonic() - hosted.resumed_at > self._settings.lease / 3:
                self._end(hosted)
            if state == ALONE:
                hosted.parent_ended()

    # --- signals

    def _inbox(self, run: Run) -> str:
        """The list where signals for processes of a run arrive; listened to from now on."""
        inbox = self._inboxes.get(run.id)
        if inbox is None:
            key = run.key("commands", self._inbox_name)
            inbox = self._inboxes[run.id] = Inbox(self._store, key, partial(self._obey, run.id))
            self._hear(inbox, True)
        return inbox.key

    def _hear(self, inbox: Inbox, listen: bool) -> None:
        if inbox.link is not None and not inbox.link.closed:
            self._selector.unregister(inbox.link)
        inbox.close()
        if listen:
            with suppress(LabError, OSError, redis.RedisError):  # the next beat tries again
                self._watch(inbox.listen(), partial(self._read, inbox))

    def _read(self, inbox: Inbox) -> None:
        link = inbox.link
        assert link is not None
        self._selector.unregister(link)
        if inbox.read():
            self._watch(link, partial(self._read, inbox))
        else:
            inbox.close()

    def _obey(self, run_id: str, process: str, blob: bytes) -> None:
        for hosted in self._hosted.values():
            if (hosted.run.id, hosted.run.me) == (run_id, process):
                if not blob:
                    self._renew([hosted])
                    self._go_on(hosted)
                elif words := hosted.wanted(blob):
                    self._do(hosted, words[0], words[-1])
                return

    def _do(self, hosted: Hosted, what: str, ticket: str) -> None:
        if what.isdecimal():
            self._forker.signal(hosted.pid, int(what))
        elif what == "printed":
            hosted.tell_printed()
        elif hosted.stopped or hosted.dump is None or hosted.dump.closed:
            hosted.answer(ticket, [])
        else:
            hosted.dump.ask(ticket)
            self._forker.signal(hosted.pid, SIGNAL)

    # --- the end

    def _forsake(self) -> None:
        """In the forker: close what is the supervisor's."""
        self._selector.close()
        self._worker.close()
        for inbox in self._inboxes.values():
            inbox.close()
        for hosted in self._hosted.values():
            hosted.close()
        self._shares.forsake()

    def _end(self, hosted: Hosted) -> None:
        hosted.lost = True
        self._forker.signal(hosted.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """The host stops: nobody runs on unsupervised, and parents need not wait for a lease."""
        for hosted in self._hosted.values():
            self._end(hosted)
        while self._hosted:
            self._reap()
        self._forker.close()
        if copies.HERE is not None:
            copies.HERE.close()
