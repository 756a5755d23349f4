"""A run: one program, its processes on all hosts, and everything that they share in Redis.

On Redis, under ``crosshost:{RUN}:``

* ``processes``: sorted set, process id -> when its lease lapses (milliseconds, the server's clock). ``root`` is the
  program itself. Whoever is not in it is dead to the run: its locks are free, and what it still sends is refused.
* ``keys``: set, the names of the run's keys. The root renews their expiry, and deletes them when the program ends.
* ``process:ID``: hash, a process from its start to its end. ``mail:ID``: list, what happens to the children of ID.
* ``journal:ID``: hash, how far Redis came with what the process sent (``script``). ``hand:ID-N:0`` and ``:1``: lists, what
  a thread of the process has just taken (``hand``); ``hands:ID``: set, their names.
* ``children:ID``: set, the processes that ID has started and that live. ``commands:ID``: list, signals for ID; an empty
  one says that its parent has ended.
* ``luggage:ID``: string, a large message (``claimcheck``).
* ``locks``: set, the locks and recursive locks of the run. ``ends:ID``: set, the pipe ends that process ID holds.

The root renews its own lease and buries processes whose lease lapsed; a child's lease is renewed by the worker slot that
supervises it (``worker.supervisor``), so a child that computes for minutes, or holds the GIL, is not taken for dead.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import util
from typing import Any

from lab.cluster import wire
from lab.cluster.hand import Hand
from lab.cluster.lane import lost_data
from lab.cluster.script import Script
from lab.cluster.store import Store
from lab.errors import BrokerUnreachable, LabError, WrongKey
from lab.settings import Settings

ROOT = "root"
ROOT_LEASES = 5
"""The root is taken for dead after this many leases: it renews in a thread of its own, which a long C call can hold up."""

TTL_LEASES = 10
"""A key lives for this many leases after the last renewal."""

JOIN = Script(
    """
redis.call('ZADD', processes, now() + ARGV[3], me)
create(processes)
return now()
""",
    numbered=False,
)

BEAT = Script(
    """
if not alive(me) then return -1 end  -- who has joined is there as long as Redis remembers anything
local last = tonumber(alive(me)) - ARGV[3]
if now() - last > tonumber(ARGV[4]) then
  -- Nobody was heard for a lease, this process included: Redis was away, or we were. So give everybody a lease to come back.
  for _, silent in ipairs(redis.call('ZRANGEBYSCORE', processes, '-inf', now() + ARGV[4])) do
    redis.call('ZADD', processes, now() + ARGV[4], silent)
  end
end
redis.call('ZADD', processes, now() + ARGV[3], me)
for _, key in ipairs(redis.call('SMEMBERS', registry)) do keep(key) end
keep(registry)
local lapsed = {}
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', processes, '-inf', now())) do
  lapsed[#lapsed + 1] = dead
  lapsed[#lapsed + 1] = redis.call('HGET', base .. 'process:' .. dead, 'parent') or ''
end
return lapsed
""",
    numbered=False,
)

BURY = Script(
    """
local dead, lapsed_only, ended_well = ARGV[3], ARGV[5] == '1', ARGV[6] == '1'
local score = alive(dead)
if not score or lapsed_only and tonumber(score) > now() then return 0 end
redis.call('ZREM', processes, dead)
-- who ended well has left its locks locked, for another to release, as in multiprocessing
for _, lock in ipairs(ended_well and {} or redis.call('SMEMBERS', base .. 'locks')) do
  local holder = redis.call('HGET', lock, 'holder')
  if holder and string.match(holder, '^[^/]+') == dead and not grant(lock) then
    redis.call('HSET', lock, 'value', 1, 'holder', '')
  end
end
for _, held in ipairs(redis.call('SMEMBERS', base .. 'ends:' .. dead)) do
  hang_up(string.match(held, '^(.+) (.+)$'))
end
redis.call('SREM', base .. 'children:' .. string.match(KEYS[3], '[^:]+$'), dead)
for _, child in ipairs(redis.call('SMEMBERS', base .. 'children:' .. dead)) do
  if alive(child) then push(base .. 'commands:' .. child, '') end  -- its supervisor looks who is still there
end
for _, hand in ipairs(redis.call('SMEMBERS', base .. 'hands:' .. dead)) do
  sweep(hand)
end
-- without a journal, what it still sends is refused (lab.cluster.script)
for _, kind in ipairs({'journal:', 'hands:', 'process:', 'ends:', 'commands:', 'children:', 'mail:', 'bell:'}) do
  redis.call('DEL', base .. kind .. dead)
  redis.call('SREM', registry, base .. kind .. dead)
end
push(KEYS[3], ARGV[4])
return 1
""",
    numbered=False,
)  # the second time, there is nobody to bury

MAIL = Script("push(KEYS[3], ARGV[3]) return 1")

DELETE = Script(
    """
for _, key in ipairs(redis.call('SMEMBERS', registry)) do redis.call('UNLINK', key) end
return redis.call('UNLINK', registry, processes)
""",
    numbered=False,
)


class Run:
    """This process's place in a run.

    Args:
        settings: The fleet's settings, with a key.
        store: Redis.
        run_id: Name of the run.
        me: Id of this process in it, ``root`` for the program itself.
    """

    def __init__(self, settings: Settings, store: Store, run_id: str, me: str = ROOT) -> None:
        self.settings, self.store, self.id, self.me = settings, store, run_id, me
        self.base = f"crosshost:{{{run_id}}}:"
        self.ttl = int(settings.lease * TTL_LEASES * 1000)
        self.mailbox = self.key("mail", me)
        self._head = (self.key("processes"), self.key("journal", me))
        self._counter = itertools.count()
        self._clock = 0
        self._hands = threading.local()
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._listening = False
        self._told, self._forgotten = "", False
        self._stop = threading.Event()

    @classmethod
    def as_root(cls, settings: Settings, store: Store) -> Run:
        """Begin a run, of which this process is the program."""
        run = cls(settings, store, secrets.token_hex(6))
        run.set_clock(run.eval(JOIN, [], int(settings.lease * ROOT_LEASES * 1000)))
        run._spawn(run._beat, "crosshost-beat")
        util.Finalize(None, run._hurry, exitpriority=100)  # before pools and children are ended
        # runs after multiprocessing's own exit function has joined the children
        util.Finalize(None, run.close, exitpriority=-100)
        return run

    def set_clock(self, server_ms: int) -> None:
        """Learn the server's time, by which everything in a run is dated."""
        self._clock = server_ms - int(time.monotonic() * 1000)

    def server_ms(self) -> int:
        """The server's time now, in milliseconds, as far as this process knows it."""
        return self._clock + int(time.monotonic() * 1000)

    def key(self, *names: str) -> str:
        """A key of this run; the braces are Redis Cluster's hash tag, which keeps a run on one node."""
        return self.base + ":".join(names)

    def new_name(self, kind: str) -> str:
        """A key that no other process of the run makes."""
        return self.key(kind, f"{self.me}-{next(self._counter)}")

    def command(self, script: Script, keys: list[str], *args: Any) -> tuple[Any, ...]:
        """The Redis command that runs a script for this process."""
        return (script.word, script.sha, 2 + len(keys), *self._head, *keys, self.me, self.ttl, *args)

    def eval(self, script: Script, keys: list[str], *args: Any) -> Any:
        """Run a script and return its reply."""
        return self.store.call(*self.command(script, keys, *args))

    def take(self, source: str, timeout: float | None, most: int = 1) -> list[bytes]:
        """Take the first of a list, waiting for it, and up to ``most`` that are there (``Hand.take``)."""
        hand: Hand | None = getattr(self._hands, "hand", None)
        if hand is None or hand.pid != os.getpid():
            hand = self._hands.hand = Hand(self)
        return hand.take(source, timeout, most)

    def give_back(self, source: str) -> None:
        """Lay the item that this thread took last back to the head of its list."""
        self._hands.hand.give_back(source)

    def post(self, script: Script, keys: list[str], *args: Any) -> None:
        """Run a script without waiting for it (``Store.post``)."""
        self.store.post(*self.command(script, keys, *args))

    def check(self) -> None:
        """Make sure that Redis knows this run.

        Raises:
            BrokerUnreachable: It has lost its data.
        """
        self.check_memory()
        if not self.store.call("EXISTS", self._head[0]):
            raise lost_data(self.store.address)

    def check_memory(self) -> None:
        """The same as far as this process has noticed, without a round trip."""
        if self._forgotten:
            raise lost_data(self.store.address)

    def seal(self, purpose: str, *parts: Any) -> Any:
        """Sign a payload under the fleet's key (``wire.seal``)."""
        return wire.seal(self.settings.authkey, purpose, *parts)

    def unseal(self, purpose: str, blob: bytes) -> memoryview:
        """Verify a payload; WrongKey if it was not sealed for this purpose."""
        return wire.unseal(self.settings.authkey, purpose, blob)

    def letter(self, mailbox: str, **event: Any) -> Any:
        """A sealed mail: JSON, so that reading one can execute nothing."""
        return self.seal(mailbox, json.dumps(event).encode())

    def listen(self, process_id: str, handler: Callable[[dict[str, Any]], None]) -> None:
        """Have the handler called, in the listener's thread, with each event of a child."""
        self._handlers[process_id] = handler
        with self._starting:  # excluded: two threads that start their first child at once, two listeners
            if not self._listening:
                self._listening = True
                self._spawn(self._listen, "crosshost-listener")

    def forget(self, process_id: str) -> None:
        """Stop listening to a child."""
        self._handlers.pop(process_id, None)

    @property
    def closed(self) -> bool:
        """Whether this process has left the run."""
        return self._stop.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        self._stop.wait(seconds)

    def close(self) -> None:
        """End the run: stop its threads and, for the root, delete its keys."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self.me == ROOT:
            self._hurry()
        try:
            if self._listening:
                self.eval(MAIL, [self.mailbox], self.letter(self.mailbox, event="stop"))
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(self.settings.lease)
            if self.me == ROOT:
                self.eval(DELETE, [])
            else:
                self.store.settle()
        except (LabError, OSError):
            return  # Redis is gone; what it still holds expires
        finally:
            if self.me == ROOT:
                # Excluded: a thread in the middle of a wait, which tells the user that the fleet of the run went away.
                self.store.outage.give_up()

    def _hurry(self) -> None:
        """Do not wait, at the end of the program, for a Redis that is away: what it still holds expires."""
        if self.store.outage.on:
            self.store.outage.patience = 0.0

    def _spawn(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(self.settings.lease / 6):  # whoever lapses is missed within a sixth more
            try:
                lease = int(self.settings.lease * 1000)
                lapsed = self.eval(BEAT, [], lease * ROOT_LEASES, lease)
                if lapsed == -1:
                    self._forgotten = True
                    self._give_up(lost_data(self.store.address))
                    return
                for dead, parent in zip(lapsed[::2], lapsed[1::2], strict=True):
                    self._bury(dead.decode(), parent.decode())
            except (LabError, OSError):
                continue  # the next beat tries again; the listener tells the user

    def _bury(self, dead: str, parent: str) -> None:
        mailbox = parent or self.mailbox
        letter = self.letter(mailbox, event="exit", process=dead, exitcode=-signal.SIGKILL, host_lost=True)
        self.eval(BURY, [mailbox], dead, letter, 1, 0)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                blobs = self.take(self.mailbox, self.settings.lease, 100)
            except BrokerUnreachable as exc:
                with self._starting:  # a child that is started once Redis is back brings a listener with it
                    self._listening = False
                self._give_up(exc)
                return
            for blob in blobs:
                self._deliver(blob)

    def _give_up(self, exc: BrokerUnreachable) -> None:
        if not self._stop.is_set() and str(exc) != self._told:
            self._told = str(exc)
            print(f"crosshost: {exc}", file=sys.stderr)
        for handler in list(self._handlers.values()):
            handler({"event": "exit", "exitcode": -signal.SIGKILL})

    def _deliver(self, blob: bytes) -> None:
        try:
            mail = json.loads(bytes(self.unseal(self.mailbox, blob)))
        except (WrongKey, ValueError) as exc:
            print(f"crosshost: {exc}", file=sys.stderr)
            return
        if mail["event"] == "output":
            _print(mail["stream"], mail["text"])
        elif handler := self._handlers.get(mail.get("process", "")):
            handler(mail)


def _print(stream: str, text: str) -> None:
    out = sys.stderr if stream == "stderr" else sys.stdout
    if out is None:
        return
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()
    except (OSError, ValueError):
        return  # the terminal is gone; the program decides by itself whether it minds


_current: Run | None = None


def current() -> Run | None:
    """The run that this process belongs to, or None."""
    return _current


def enter(run: Run | None) -> None:
    """Make a run this process's own."""
    global _current
    _current = run
