"""Taking from a list so that nothing is lost when the reply is.

A blocking pop takes an item out of Redis before anybody knows that the reply will arrive. Here the item moves to a list of
the thread that takes it, its *hand*, and stays there for a while. The thread counts what it got. If the connection breaks,
what the hand holds beyond that was taken and not heard of.

On Redis: lists ``hand:PROCESS-N:0`` and ``hand:PROCESS-N:1``: when one is full, the next items go to the other, and the full
one is deleted on that occasion; BLMOVE, and a script to take several. Set ``hands:PROCESS``, for who buries the process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from lab.errors import LabError
from lab.store.script import Script
from lab.store.store import Store

OPEN = Script("""
local hands = base .. 'hands:' .. me
redis.call('SADD', hands, KEYS[3], KEYS[4])
create(hands)
create(KEYS[3])
create(KEYS[4])
return 1
""")

FORGET = Script("""
redis.call('SREM', base .. 'hands:' .. me, KEYS[3], KEYS[4])
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('SREM', registry, KEYS[3], KEYS[4])
return 1
""")

MORE = Script(
    """
local held = tonumber(ARGV[4])
-- Excluded: taking what came just after the time for the first was up.
if redis.call('LLEN', KEYS[4]) <= held then return {} end
local more = redis.call('LPOP', KEYS[3], ARGV[3]) or {}
if #more > 0 then redis.call('RPUSH', KEYS[4], unpack(more)) end
return more
""",
    numbered=False,  # the hand tells what it did
)

TAKE = Script("return redis.call('LMOVE', KEYS[3], KEYS[4], 'LEFT', 'RIGHT')")
"""What LMOVE does, also when Redis has no memory left."""

PUT_BACK = Script("""
for _ = ARGV[3] + 1, redis.call('LLEN', KEYS[4]) do
  redis.call('LPUSH', KEYS[3], redis.call('RPOP', KEYS[4]))
end
redis.call('UNLINK', KEYS[5])
keep(KEYS[3])
return 1
""")


class Owner(Protocol):
    """What a hand needs of the run that it belongs to (``lab.store.run.Run``)."""

    store: Store
    me: str
    ttl: int

    def key(self, *names: str) -> str:
        """A key of the run."""

    def new_ticket(self) -> str:
        """A name of one wait of this process."""

    def command(self, script: Script, keys: list[str], *args: Any) -> tuple[Any, ...]:
        """The Redis command that runs a script."""

    def eval(self, script: Script, keys: list[str], *args: Any) -> Any:
        """Run a script and return its reply."""

    def post(self, script: Script, keys: list[str], *args: Any) -> None:
        """Run a script without waiting for it."""

    def check(self) -> None:
        """Make sure that Redis knows the run."""

    def check_memory(self) -> None:
        """The same, as far as this process has been told."""


FULL, FULL_BYTES = 64, 1 << 16
"""Items and their bytes, received and still in the hand, with which it is full."""


class Hand:
    """What one thread has taken. The list in Redis is never shorter than what was received of it and counted here.

    Args:
        run: The run whose lists it takes from.

    Attributes:
        busy: Whether it takes something now.
        plenty: Whether more was there, the last time that this was looked for, than was taken.
    """

    def __init__(self, run: Owner) -> None:
        self._run, self.pid = run, os.getpid()
        name = run.key("hand", f"{run.me}-{secrets.token_hex(4)}")
        self._hand, self._other = f"{name}:0", f"{name}:1"
        self._held = self._held_bytes = 0  # received, of what the hand holds
        self.busy = False
        self._unfinished = ""
        self.plenty = False
        run.post(OPEN, [self._hand, self._other])

    def __del__(self) -> None:
        # the thread has ended; a forked copy of its hand is none of this process's business
        if self.pid == os.getpid():
            self._run.store.defer(*self._run.command(FORGET, [self._hand, self._other]))

    def take(
        self,
        source: str,
        timeout: float | None,
        most: int = 1,
        before: Sequence[tuple[Any, ...]] = (),
        look: bool = False,
    ) -> list[bytes]:
        """Take the first item of a list, and those behind it.

        Args:
            source: The list.
            timeout: Seconds to wait for the first item; None for as long as it takes.
            most: How many to take at once, of those that are there. The first time that there are several, only one is
                taken: to look for more that is not there would cost as much again.
            before: Commands for Redis to run first, in the same round trip, which do no harm when they run twice.
            look: Whether to look for more also when one is taken.

        Returns:
            The items; none if there was none in time.
        """
        self.busy = True
        try:
            return self._take_counted(source, timeout, most, before, look)
        finally:
            self.busy = False

    def _take_counted(
        self, source: str, timeout: float | None, most: int, before: Sequence[tuple[Any, ...]], look: bool
    ) -> list[bytes]:
        if self._unfinished:
            self._run.store.end_wait(patiently=True)
            self._put_back()
        full = self._held >= FULL or self._held_bytes >= FULL_BYTES
        if full:
            self._hand, self._other = self._other, self._hand
            self._held = self._held_bytes = 0
        try:
            first = [*([("UNLINK", self._other)] if full else []), *before]
            taken = self._take(source, timeout, most, first, look or most > 1)
            self._held_bytes += sum(map(len, taken))
            self._held += len(taken)
        except BaseException:
            # Excluded: an item that nobody has, as it was taken for a thread that was interrupted and will not look.
            self._put_back_soon(source)
            raise
        return taken

    def give_back(self, source: str) -> None:
        """Lay the item that was taken last back to the head of its list."""
        self._held -= 1
        self._put_back_soon(source)

    def _put_back_soon(self, source: str) -> None:
        self._unfinished = source
        # Not while Redis is away: who interrupts a wait for it is not to be kept waiting for it here. The next take does it.
        if not self._run.store.outage.on and self._run.store.end_wait(patiently=False):
            with suppress(LabError):
                self._put_back()

    def _put_back(self) -> None:
        self._run.eval(PUT_BACK, [self._unfinished, self._hand, self._other], self._held)
        self._unfinished = ""

    def _take(
        self, source: str, timeout: float | None, most: int, before: list[tuple[Any, ...]], look: bool
    ) -> list[bytes]:
        hand, held = self._hand, self._held
        plenty = most > 1 and self.plenty
        recovered: list[bytes] = []

        def move(left: float) -> tuple[Any, ...]:
            self._run.check_memory()  # who waits for what is no more is told
            if timeout is not None and timeout <= 0:
                return ("LMOVE", source, hand, "LEFT", "RIGHT")
            return ("BLMOVE", source, hand, "LEFT", "RIGHT", left)

        def recover(_applied: int) -> list[Any] | None:
            self._run.check()
            expiry = ("PEXPIRE", hand, self._run.ttl)
            *_, taken, _ = self._run.store.pipeline([*before, ("LRANGE", hand, held, -1), expiry])
            recovered.extend(taken)
            return recovered or None

        def instead() -> list[Any] | None:
            blob = self._run.eval(TAKE, [source, hand])
            return [blob, () if plenty else 0] if blob else None

        after: list[tuple[Any, ...]] = [] if held else [("PEXPIRE", hand, self._run.ttl)]
        if plenty:
            after.append(self._run.command(MORE, [source, hand], most - 1, held))
        elif look:
            after.append(("LLEN", source))
        replies = self._run.store.wait(move, timeout, before, after, recover, instead)
        if replies is None or recovered:
            return recovered
        if look:
            self.plenty = bool(replies[-1])
        return [replies[0], *(replies[-1] if plenty else ())]
