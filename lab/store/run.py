"""A run: one program, its processes on all hosts, and everything that they share in Redis.

On Redis, under ``crosshost:{RUN}:``

* ``processes``: sorted set, process id -> when its lease lapses (milliseconds, the server's clock). ``root`` is the
  program itself. Whoever is not in it is dead to the run: its locks are free, and what it still sends is refused.
* ``keys``: set, the names of the run's keys. The root renews their expiry, and deletes them when the program ends.
* ``process:ID``: hash, a process from its start to its end. ``mail:ID``: list, what happens to the children of ID.
* ``journal:ID``: hash, how far Redis came with what the process sent (``script``). ``hand:ID-N:0`` and ``:1``: lists, what
  a thread of the process has just taken (``hand``); ``hands:ID``: set, their names.
* ``children:ID``: set, the processes that ID has started and that live. ``commands:HOST/NONCE``: list, signals for
  processes on one host (``worker.inbox``).
* ``luggage:ID``: string, a large message (``claimcheck``).
* ``reads:ID``: hash, the lists that ID alone reads, and what it has got of those that it held ahead (``lab.cluster.reader``).
* ``share:ID`` and more: an object that hosts share; ``shares:ID``: set, those that process ID has (``lab.cluster.share``).
* ``locks``: sorted set, the locks and recursive locks of the run by name. ``ends:ID``: set, the pipe ends of process ID.
* ``graves``: set, the processes that are being buried; ``grave:ID``: hash, how far that has come, the letter to the parent.
* ``swept``: set, long lists that nobody reads any more and that are deleted bit by bit, ``LIST:swept:TIME``.
* ``LIST:room``, ``LIST:room:waiters``: what lies in a list unread, and who waits until it is less (``backlog``).
* ``round``: string, how far the renewal of ``keys`` has come. ``grace``: string, there while nobody is taken for dead.

The root renews its own lease and buries processes whose lease lapsed; a child's lease is renewed by the supervisor of its
host (``worker.supervisor``), so a child that computes for minutes, or holds the GIL, is not taken for dead. Beside the root
stands its ``keeper``, which beats when the root itself is held up.

No script takes long, however much a run holds: what grows with it is done in slices, and Redis serves others in between.
What another process can see between two slices, and why it does no harm:

* Renewal: some keys are renewed and others not yet. A key that is made meanwhile has an expiry of its own.
* A burial: some of what the dead held is free and some is not, as if it had let go of one after the other. It takes nothing
  more, as its death and its journal's end are in the first slice. Its parent hears of it in the last. If whoever buries
  it dies, the beats go on: what is left to do is on record, and each slice takes away what it has done.
* A list that is deleted: in one step it is empty for everybody; its messages lie under a name that nobody else knows.
* The end of a run: in the first slice everybody is taken for dead, so nothing that is fenced takes effect any more; what
  still is made then expires.
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
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing import util
from typing import Any

import redis

from lab.errors import BrokerUnreachable, KeyLost, LabError, WrongKey
from lab.settings import Settings
from lab.store import ledger, wire
from lab.store.backlog import Backlog
from lab.store.hand import Hand
from lab.store.keeper import Keeper
from lab.store.lane import lost_data
from lab.store.script import Script
from lab.store.store import Store

ROOT = "root"
ROOT_LEASES = 5
"""The root is taken for dead after this many leases: where no keeper can be started, a long C call holds it up."""

OUTPUT = 1 << 20
"""Bytes that processes have printed and the program has not shown yet, before they wait as at a full pipe."""

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
if redis.call('SISMEMBER', registry, processes) == 0 then return -2 end  -- likewise; without it no key is renewed
local lease = tonumber(ARGV[4])
if now() - (alive(me) - ARGV[3]) > lease then
  -- Nobody was heard for a lease, this process included: Redis was away, or we were. So everybody gets a lease to come back.
  redis.call('SET', base .. 'grace', 1, 'PX', lease)
end
redis.call('ZADD', processes, now() + ARGV[3], me)
local round = string.match(redis.call('GET', base .. 'round') or '0', '^%d+$') or '0'
local cursor, names = unpack(redis.call('SSCAN', registry, round, 'COUNT', ARGV[5]))
for _, key in ipairs(names) do keep(key) end
keep(registry)
if cursor == '0' then redis.call('DEL', base .. 'round') else redis.call('SET', base .. 'round', cursor, 'PX', ttl) end
local swept = redis.call('SRANDMEMBER', base .. 'swept')
if swept and clear(swept) then redis.call('SREM', base .. 'swept', swept) end
local dead = redis.call('SRANDMEMBER', base .. 'graves')
if dead and not pcall(function() dig(dead) end) then
  -- Excluded: beats that fail for ever, at a key of the dead that somebody has written to. Its parent misses it (LOST).
  redis.call('SREM', base .. 'graves', dead)
end
-- A round through all names takes a quarter of the time that keys live. So one that is done again, as Redis was started again
-- meanwhile and its cursor leads elsewhere, comes in time.
local pause = math.min(lease / 6, ttl / 4 * ARGV[5] / redis.call('SCARD', registry))
if swept or dead then pause = math.min(pause, 5) end
local reply = {math.max(1, math.floor(pause))}
if redis.call('EXISTS', base .. 'grace') == 1 then return reply end
for _, lapsed in ipairs(redis.call('ZRANGEBYSCORE', processes, '-inf', now(), 'LIMIT', 0, 100)) do
  reply[#reply + 1] = lapsed
  reply[#reply + 1] = redis.call('HGET', base .. 'process:' .. lapsed, 'parent') or ''
end
return reply
""",
    numbered=False,  # the second time, it does the next slice
)
"""Renew the root's lease and the expiry of a slice of the run's names, and go on with what is deleted and buried in slices.

It replies -1 if Redis does not know the run, -2 if it does not know the run's keys, or else the milliseconds after which the
next beat is due, and who has lapsed: process, mailbox of its parent, process ...
"""

BURY = Script(
    """
local dead, lapsed_only, ended_well = ARGV[3], ARGV[5] == '1', ARGV[6] == '1'
local score = alive(dead)
if score then
  if lapsed_only and tonumber(score) > now() then return 0 end
  return bury(dead, KEYS[3], ARGV[4], ended_well, ARGV[7]) and 1 or 2
end
if redis.call('SISMEMBER', base .. 'graves', dead) == 0 then return 0 end
return dig(dead) and 1 or 2
""",
    numbered=False,  # the second time, there is nobody to bury, or a slice more
)
"""Begin or go on with a burial; ``UNFINISHED`` if more is left, which the beats do if nobody else does."""

UNFINISHED = 2

MAIL = Script("push(KEYS[3], ARGV[3]) return 1")

LOST = Script(
    """
local lost = {}
if redis.call('LLEN', KEYS[3]) > 0 then return lost end  -- it may lie there
for i = 3, #ARGV do
  if not alive(ARGV[i]) and redis.call('SISMEMBER', base .. 'graves', ARGV[i]) == 0 then lost[#lost + 1] = ARGV[i] end
end
return lost
""",
    numbered=False,
)
"""Which of some children, which had started, have ended without a letter that is still to be read.

Excluded: one whose letter is on its way. It comes in the step that takes the child out of ``graves``, and before that the
child is in one of the two; and who asks has delivered all that it took."""

DELETE = Script(
    """
redis.call('UNLINK', processes, base .. 'round', base .. 'grace')
for _, key in ipairs(redis.call('SPOP', registry, ARGV[3])) do redis.call('UNLINK', key) end
return redis.call('EXISTS', registry)
""",
    numbered=False,  # the second time, it deletes the next slice
)
"""Delete a slice of a run; whether more is left. The first ends it for everybody; the rest expires if it is not deleted."""

SAMPLE = 1000
"""Keys that are looked at to say what holds Redis's memory."""

NAMES = 200
"""Keys that one script renews or deletes, which takes some tenths of a millisecond."""


class Run:
    """This process's place in a run.

    Args:
        settings: The fleet's settings, with a key.
        store: Redis.
        run_id: Name of the run.
        me: Id of this process in it, ``root`` for the program itself.

    Attributes:
        taken: Of each thread, what it foresees with the lock that it took last (``lab.cluster.foresight``).
    """

    def __init__(self, settings: Settings, store: Store, run_id: str, me: str = ROOT) -> None:
        self.settings, self.store, self.id, self.me = settings, store, run_id, me
        self.base = f"crosshost:{{{run_id}}}:"
        self.ttl = int(settings.lease * TTL_LEASES * 1000)
        self.mailbox = self.key("mail", me)
        # a child's parent need not hold another key than the one that it sealed the child with
        self._keys = wire.Keys(settings.keyring, f"run {run_id}", follow=me != ROOT)
        self._once = wire.Once()
        self._head = (self.key("processes"), self.key("journal", me))
        self._counter, self._pid, self._fork = itertools.count(), os.getpid(), ""
        self._clock = 0
        self._hands = threading.local()
        self.taken = threading.local()
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._listening = False
        self._running: set[str] = set()  # children that are known to have started, and not to have ended
        self._told: set[str] = set()
        self._over: BrokerUnreachable | None = None
        self._stop = threading.Event()
        self._keeper: Keeper | None = None

    @classmethod
    def as_root(cls, settings: Settings, store: Store) -> Run:
        """Begin a run, of which this process is the program."""
        run = cls(settings, store, secrets.token_hex(6))
        store.shortage.holders = run.holders
        ledger.OWN.of_program()
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
        return self.key(kind, f"{self.me}-{self._mark()}")

    def new_ticket(self) -> str:
        """A name of one wait of this process, which no other wait of the run has."""
        return f"{self.me}/{self._mark()}"

    def _mark(self) -> str:
        if self._pid != os.getpid():  # excluded: a forked child that goes on counting where its parent does
            self._pid, self._fork = os.getpid(), f"{secrets.token_hex(4)}."
        return f"{self._fork}{next(self._counter)}"

    def command(self, script: Script, keys: list[str], *args: Any) -> tuple[Any, ...]:
        """The Redis command that runs a script for this process."""
        return (script.word, script.sha, 2 + len(keys), *self._head, *keys, self.me, self.ttl, *args)

    def eval(self, script: Script, keys: list[str], *args: Any) -> Any:
        """Run a script and return its reply."""
        return self.store.call(*self.command(script, keys, *args))

    def take(
        self,
        source: str,
        timeout: float | None,
        most: int = 1,
        before: Sequence[tuple[Any, ...]] = (),
        look: bool = False,
    ) -> list[bytes]:
        """Take the first of a list, waiting for it, and up to ``most`` that are there (``Hand.take``)."""
        hand: Hand | None = getattr(self._hands, "hand", None)
        if hand is None or hand.pid != os.getpid():
            hand = self._hands.hand = Hand(self)
        elif hand.busy:  # in a handler that interrupts a take of this thread, which has counted what it holds
            hand = Hand(self)
        return hand.take(source, timeout, most, before, look)

    @property
    def plenty(self) -> bool:
        """Whether more was there than this thread took, when it last looked."""
        return bool(self._hands.hand.plenty)

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

    def holders(self) -> str:
        """What of this run holds most of Redis's memory, in words; by a sample of its keys if it has many."""
        names = self.store.call("SRANDMEMBER", self.key("keys"), SAMPLE)
        try:
            sizes = self.store.pipeline([("MEMORY", "USAGE", name) for name in names])
        except (BrokerUnreachable, redis.ResponseError):
            return ""  # a user may not be allowed to ask
        held: Counter[str] = Counter()
        for name, size in zip(names, sizes, strict=True):
            held[name.decode()[len(self.base) :].partition(":")[0]] += size or 0
        most = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in held.most_common(3))
        of = f"{len(names)} of its keys" if len(names) == SAMPLE else "it"
        return f"This program holds {sum(held.values()) / 1e6:.1f} MB of it ({most or 'nothing'}), by a look at {of}."

    def check_memory(self) -> None:
        """The same as far as this process has noticed, without a round trip."""
        if (over := self._over) is not None:
            raise type(over)(over.message, over.hint)

    def put_right(self, exc: KeyLost) -> None:
        """Tell the user that a key of the run was damaged, in a thread that serves the process and has to go on.

        What it waited at is deleted by now (``damage``). What was in it, whoever waits for that will miss.

        Raises:
            BrokerUnreachable: There is nothing to go on with: the run is lost.
        """
        self.check_memory()
        self._tell(exc)
        self.pause(0.5)  # excluded: asking again and again at once, where this process may not delete

    def _tell(self, exc: LabError) -> None:
        if not self._stop.is_set() and str(exc) not in self._told:
            self._told.add(str(exc))
            print(f"crosshost: {exc}", file=sys.stderr)

    def seal(self, purpose: str, *parts: Any, kind: int = wire.PLAIN, clear: bytes = b"") -> Any:
        """Encrypt a payload under the fleet's key (``wire.Keys.seal``)."""
        return self._keys.seal(purpose, *parts, kind=kind, clear=clear)

    def unseal(self, purpose: str, blob: bytes | bytearray) -> memoryview:
        """Decrypt a payload; WrongKey if it was not sealed for this purpose."""
        return self._keys.unseal(purpose, blob)

    def unseal_into(self, purpose: str, blob: bytes | bytearray, memory: memoryview) -> None:
        """The same to where the payload is to lie (``wire.Keys.unseal_into``)."""
        self._keys.unseal_into(purpose, blob, memory)

    def unseal_once(self, purpose: str, blob: bytes) -> memoryview:
        """The same from a list that only this process reads; WrongKey for what it has read before, too."""
        payload = self._keys.unseal(purpose, blob)
        self._once.check(purpose, blob)
        return payload

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
        self._running.discard(process_id)

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
                self._end_keeper()
                while self.eval(DELETE, [], NAMES):
                    pass
            else:
                self.store.settle()
        except (LabError, OSError):
            return  # Redis is gone; what it still holds expires
        finally:
            if self.me == ROOT:
                self._end_keeper()
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
        lease = int(self.settings.lease * 1000)
        beat = self.command(BEAT, [], lease * ROOT_LEASES, lease, NAMES)
        last = self.command(BEAT, [], lease // 2, lease, NAMES)  # half a lease, as it takes a while to be noticed
        self._keeper = Keeper(self.store.connection_options(), (BEAT.text, *beat), lease / 2000, last)
        pause = self.settings.lease / 6
        while True:
            kept = self._keeper.look()
            if self._stop.wait(
                self.settings.lease / 6 if kept else pause
            ):  # whoever lapses is missed within a sixth more
                return
            try:
                reply = self.store.call(*beat)
                if isinstance(reply, int):
                    known = KeyLost.gone(self.key("keys"), "the names of the keys of this program")
                    self._over = lost_data(self.store.address) if reply == -1 else known
                    self._give_up(self._over)
                    return
                pause = reply[0] / 1000
                for dead, parent in zip(reply[1::2], reply[2::2], strict=True):
                    mailbox = parent.decode() or self.mailbox
                    self.bury(dead.decode(), mailbox, -signal.SIGKILL, host_lost=True, lapsed_only=True)
            except KeyLost as exc:
                self._tell(exc)
                pause = self.settings.lease / 6
            except (LabError, OSError):
                pause = self.settings.lease / 6  # the next beat tries again; the listener tells the user

    def _end_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.close()

    def bury(
        self, dead: str, mailbox: str, exitcode: int, host_lost: bool, lapsed_only: bool = False, got: str = ""
    ) -> None:
        """Have done with a process of the run: free what it held, and tell its parent.

        Args:
            dead: The process.
            mailbox: Its parent's.
            exitcode: Its exit code.
            host_lost: Whether it ended because its host did, which is no doing of the process.
            lapsed_only: Whether to do so only if its lease has lapsed.
            got: What it had got of what it held ahead, if its host can tell (``ledger``).
        """
        letter = self.letter(mailbox, event="exit", process=dead, exitcode=exitcode, host_lost=host_lost)
        while self.eval(BURY, [mailbox], dead, letter, int(lapsed_only), int(exitcode == 0), got) == UNFINISHED:
            pass

    def _listen(self) -> None:
        shown, look_at = Backlog(self, self.mailbox, OUTPUT), 0.0
        while not self._stop.is_set():
            try:
                try:
                    for blob in self.take(self.mailbox, self.settings.lease, 100, shown.before_take()):
                        if self._deliver(blob):
                            shown.took(len(blob))
                    if time.monotonic() >= look_at:
                        look_at = time.monotonic() + self.settings.lease / 2
                        self._miss()
                except KeyLost as exc:
                    self.put_right(exc)
            except LabError as exc:
                with self._starting:  # a child that is started once Redis is back brings a listener with it
                    self._listening = False
                self._give_up(exc)
                return

    def _miss(self) -> None:
        """Notice children whose last letter was deleted: nobody waits for it for ever."""
        running = list(self._running)
        for lost in self.eval(LOST, [self.mailbox], *running) if running else []:
            child = lost.decode()
            self._tell(KeyLost.gone(self.mailbox, f"how process {child} has ended"))
            self._hear(child, {"event": "exit", "process": child, "exitcode": -signal.SIGKILL, "host_lost": True})

    def _give_up(self, exc: LabError) -> None:
        self._tell(exc)
        for child in list(self._handlers):
            self._hear(child, {"event": "exit", "exitcode": -signal.SIGKILL})

    def _hear(self, child: str, mail: dict[str, Any]) -> None:
        if handler := self._handlers.get(child):
            (self._running.add if mail["event"] == "started" else self._running.discard)(child)
            handler(mail)
            if mail["event"] == "exit":
                self.forget(child)  # excluded: a program of many processes that keeps the descriptors of all of them

    def _deliver(self, blob: bytes) -> bool:
        """Do what a mail says; whether it is something that a process printed."""
        try:
            mail = json.loads(bytes(self.unseal_once(self.mailbox, blob)))
        except (WrongKey, ValueError) as exc:
            print(f"crosshost: {exc}", file=sys.stderr)
            return False
        if mail["event"] == "output":
            _print(mail["stream"], mail["text"])
            return True
        self._hear(mail.get("process", ""), mail)
        return False


def _print(stream: str, text: str) -> None:
    """Write to the program's stream, which may be a class of its own.

    Excluded: what such a stream raises ends the thread that hears how processes end, and whoever joins one waits for ever.
    """
    out = sys.stderr if stream == "stderr" else sys.stdout
    if out is None:
        return
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        if not _is_text(text) and (raw := getattr(out, "buffer", None)) is not None:
            out.flush()
            raw.write(text.encode("utf-8", "surrogateescape"))  # what is no text, as it was written
        else:
            out.write(text.encode(encoding, "replace").decode(encoding))
        if flush := getattr(out, "flush", None):
            flush()
    except (OSError, ValueError):
        return  # the terminal is gone; the program decides by itself whether it minds
    except BaseException:  # noqa: BLE001 - a class of the program's
        threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))


def _is_text(text: str) -> bool:
    """Whether it has nothing that stands for a byte which is no text (``surrogateescape``)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_current: Run | None = None


def current() -> Run | None:
    """The run that this process belongs to, or None."""
    return _current


def enter(run: Run | None) -> None:
    """Make a run this process's own."""
    global _current
    _current = run
