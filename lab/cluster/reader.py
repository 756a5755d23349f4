"""Reader: one process at the reading end of a queue, which holds ahead while no other process reads.

Whoever reads says so first. A process that finds that another holds messages asks it, by its bell, to lay them back, and
takes nothing before that, which is some milliseconds: excluded, that it gets what was put later first. From then on nobody
holds any. If a process dies, what it held and had not got is laid back with its burial.

Excluded, that what it had got is got again: its host reads that in its ledger. If the host is dead too, this process has
said how many it had got before whatever else it sent after that.

On Redis, for a queue ``queue:ID``: hash ``queue:ID:reader``: ``alone``, who alone reads, empty if several do; if it
holds messages, its name at the bell (``lab.cluster.watch``) and its slot in the ledger. List
``queue:ID:reader:waiters``, who waits for it, on ``wake:TICKET``. Hash ``reads:PROCESS``, what it has got, by the queues of
which it holds messages. What ``lab.store.ahead`` names.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lab.cluster.watch import bell
from lab.errors import LabError
from lab.store.ahead import Ahead
from lab.store.ledger import OWN
from lab.store.run import Run
from lab.store.script import Script

ASK_AGAIN = 1.0
"""Seconds after which who waits asks again: a ring, or the answer, can be lost with a server's memory."""

CLAIM = Script(
    """
local list, reads = KEYS[3], base .. 'reads:'
local reader, held = list .. ':reader', list .. ':held'
local alone, name = unpack(redis.call('HMGET', reader, 'alone', 'name'))
if alone == me then return 1 end
local mine = not alone
if alone and alone ~= '' then
  local got = tonumber(redis.call('HGET', reads .. alone, list) or 0)
  if redis.call('LLEN', held) - 1 > got - tonumber(redis.call('LINDEX', held, 0) or 0) then
    if alive(alone) then push(base .. 'bell:' .. alone, name .. ' 0') end  -- or it is just being buried
    push(reader .. ':waiters', ARGV[3])
    create(reader .. ':waiters')
    return 0
  end
  redis.call('HDEL', reads .. alone, list)
  mine = not alive(alone)
end
redis.call('HSET', reader, 'alone', mine and me or '')
create(reader)
return mine and 1 or 2
""",
    fenced=True,
    numbered=False,
)
"""Ask to read: 1 if this process alone does, 2 if several do, 0 if one must lay back first what it holds."""
ALONE = 1

HOLD = Script(
    """
local reader, reads = KEYS[3] .. ':reader', base .. 'reads:' .. me
if redis.call('HGET', reader, 'alone') ~= me then return false end
redis.call('HSET', reader, 'name', ARGV[5], 'slot', ARGV[6])
redis.call('HSET', reads, KEYS[3], ARGV[3])
create(reads)
return hold(KEYS[3], ARGV[3], ARGV[4])
""",
    fenced=True,
    numbered=False,
)

GOT = Script(
    """
local reads = base .. 'reads:' .. me
if redis.call('HEXISTS', reads, KEYS[3]) == 1 then redis.call('HSET', reads, KEYS[3], ARGV[3]) end
""",
    fenced=True,
    numbered=False,
)

YIELD = Script(
    """
local reader = KEYS[3] .. ':reader'
if redis.call('HGET', reader, 'alone') ~= me then return end
if ARGV[4] == '' then redis.call('DEL', reader) else redis.call('HSET', reader, 'alone', '') end
redis.call('HDEL', base .. 'reads:' .. me, KEYS[3])
read_by_others(KEYS[3], tonumber(ARGV[3]))
""",
    numbered=False,
)
"""Lay back what is held, and read no longer alone, or not at all."""

_names = itertools.count()


class Reader(Ahead):
    """A queue's list, as this process reads it.

    Args:
        run: The run.
        key: The list.
        holds: Whether messages may be held: nobody reads the list but by Readers that say so, one in each process.
    """

    def __init__(self, run: Run, key: str, holds: bool) -> None:
        super().__init__(run, key)
        self.allowed = False
        self.name, self.holds = f"{run.me}/reader-{next(_names)}", holds
        self._may_read, self._unsaid = not holds, False
        self._slot: int | None = None

    def take(self, timeout: float | None, before: Sequence[tuple[Any, ...]] = ()) -> bytes | None:
        """The next message, waiting for it; None if there was none in time."""
        if not self._may_read and not self._claim(timeout):
            return None
        return super().take(timeout, before)

    def unread(self) -> int:
        """How many messages nobody has got."""
        if not self._may_read:
            self._claim(ASK_AGAIN)
        self.hear()
        with self.lock:  # excluded: messages counted in Redis and again here, or in neither
            return int(self._run.store.call("LLEN", self._key)) + len(self)

    def _claim(self, timeout: float | None) -> bool:
        """Ask to read; whether it may. Who does not wait for messages waits for this nevertheless, for a moment."""
        run, ticket = self._run, self._run.new_ticket()
        deadline, wake = (
            None if timeout is None else time.monotonic() + max(timeout, ASK_AGAIN),
            run.key("wake", ticket),
        )
        while not (reply := run.eval(CLAIM, [self._key], ticket)):
            left = ASK_AGAIN if deadline is None else min(ASK_AGAIN, deadline - time.monotonic())
            if left <= 0:
                return False
            run.store.wait(lambda seconds: ("BLPOP", wake, seconds), left)
        # Not a process that this one has forked: to the run it is the same.
        self.allowed, self._may_read = reply == ALONE and OWN.pid == os.getpid(), True
        return True

    def _take_held(self, many: int) -> list[bytes] | None:
        if self._slot is None:
            self._slot = OWN.new_slot()
            if self._slot is None:
                return None
            bell(self._run).add(self)  # before it can be rung
        taken: list[bytes] | None = self._run.eval(HOLD, [self._key], self.got, many, self.name, self._slot)
        return taken

    def _note(self) -> None:
        assert self._slot is not None
        OWN.notes[self._slot] = self.got
        if not self._held:
            self._run.post(*self._got())  # so that who asks to read need not wait for what was got already
        elif not self._unsaid:
            self._unsaid = True
            self._run.store.say(lambda: self._run.command(*self._got()))

    def _got(self) -> tuple[Any, ...]:
        self._unsaid = False
        return GOT, [self._key], self.got

    def ring(self, _look: int | None = None) -> None:
        """Another process is to read."""
        with suppress(LabError), self.lock:
            if self.allowed:
                self._run.eval(YIELD, [self._key], self.got, 1)
                self.drop()

    def look(self) -> None:
        """Asked now and then by the bell, whose rings can be lost: who waits rings again by itself."""

    def drop(self) -> None:
        """Forget what is held, as it was laid back, and hold nothing any more."""
        super().drop()
        if self._slot is not None:
            OWN.free(self._slot)
            self._slot = None

    def __del__(self) -> None:
        # A finalizer may run in the middle of another command of this thread, so it must not wait for the lane.
        if self.allowed and self._pid == os.getpid() and not self._run.closed:
            # Its slot is not used again. Excluded: another list's number in it, if this process is killed before.
            self._run.store.defer(*self._run.command(YIELD, [self._key], self.got, ""))
