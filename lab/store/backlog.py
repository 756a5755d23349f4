"""Backlog: what lies in a list and nobody has read yet. When that is much, who sends waits for who reads.

A pipe of the operating system takes 64 KiB; then its writer waits. Redis takes what it is given, until it has no memory left.
So a sender asks, in one script, each time that it has sent ``AHEAD`` bytes: a few messages cost nothing, and many cost a
round trip in some hundred. It is told to go on, or has its ticket among those that wait. A reader looks, in the round
trip of its next take, each time that it has taken ``LOOK`` bytes: if half is read, it wakes those who have waited longest.

How many bytes lie there is told by two numbers that senders keep, messages and their bytes, and by the length of the list:
what has gone from it was of average size. So nothing is counted where messages are taken, and nobody who dies leaves a count
that is wrong: an empty list is empty, and takes a message of any size.

On Redis, for a list ``LIST``: hash ``LIST:room`` (count, bytes), sorted set ``LIST:room:waiters``, tickets by the time
since when they wait: that of a thread, which blocks on ``wake:TICKET``, or the id of a process, whose supervisor is told
(``worker.hosted``).
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from lab.store.hand import Owner
from lab.store.script import Script

MOST = 1 << 23
"""Bytes that a list holds before its senders wait, as a rule."""
AHEAD = 1 << 18
"""Bytes that one sender may send before it asks again, as a rule."""
LOOK = 1 << 16
"""Bytes that one reader takes before it looks who waits. The first time at random: of many readers, some always look."""
LARGE = 1 << 17
"""A message after which a reader looks at once, as it may be long until it takes the next."""
WEIGHT = 100
"""Bytes that a message has in Redis beside its payload."""
ASK_AGAIN = 1.0
"""Seconds after which who waits asks again: whoever was to wake it may have died."""
TELL_AFTER = 10.0
"""Seconds after which a sender says what it waits for, where the stdlib's would not wait."""

_COUNT = """
local list, most = KEYS[3], tonumber(ARGV[3])
local room, waiters = list .. ':room', list .. ':room:waiters'
local held = redis.call('LLEN', list)
local known = redis.call('HMGET', room, 'count', 'bytes')
local count, bytes = tonumber(known[1] or 0), tonumber(known[2] or 0)
"""

_ASK = (
    _COUNT
    + """
local sent, size, ticket = tonumber(ARGV[4]), tonumber(ARGV[6]), ARGV[7]
count, bytes = count + sent, bytes + ARGV[5]
if held < count then bytes, count = math.floor(bytes * held / count), held end
redis.call('HSET', room, 'count', count, 'bytes', bytes)
create(room)
if held == 0 or bytes + size <= most then
  redis.call('ZREM', waiters, ticket)
  return 1
end
redis.call('ZADD', waiters, 'NX', now(), ticket)
create(waiters)
return 0
"""
)
# not numbered: what counts twice is put right by the length of the list
ASK = Script(_ASK, fenced=True, numbered=False, grows=True)
ASK_FULL = Script(_ASK, fenced=True, numbered=False)
"""The same for what must be sent also when Redis has no memory left, as it frees some."""

WAKE = Script(
    _COUNT
    + f"""
if redis.call('EXISTS', waiters) == 0 then return 1 end
if held < count then bytes, count = bytes * held / count, held end
if held > 0 and bytes > most / 2 then return 1 end
local each = math.max({LOOK}, count > 0 and bytes / count or most / 8)
make_way(list, math.max(1, math.floor((most - bytes) / each)))
return 1
""",
    numbered=False,  # who is woken for nothing asks again
)


LEAVE = Script("redis.call('ZREM', KEYS[3] .. ':room:waiters', ARGV[3]) return 1")
"""Wait no more."""


class Backlog:
    """A list as one process sees it that sends to it, or reads from it.

    Several threads may use it at once: what they count is then a little wrong, which the next question puts right.

    Args:
        run: The run.
        key: The list.
        most: Bytes that it holds before its senders wait, the same in all processes.
        tell: Whether a sender says on stderr that it waits, if that takes long.
        frees: Whether what is sent frees memory, so that it does not wait for a Redis that has none left.
        ahead: Bytes that this process may send before it asks again.
    """

    def __init__(
        self, run: Owner, key: str, most: int = MOST, tell: bool = False, frees: bool = False, ahead: int = AHEAD
    ) -> None:
        self.run, self.key, self.most, self._ahead = run, key, most, ahead
        self._tell, self._ask_script = tell, ASK_FULL if frees else ASK
        self._credit = ahead
        self._count = self._bytes = 0
        self._taken = random.randrange(LOOK)

    def wait(self, size: int, timeout: float | None = None) -> bool:
        """Wait until there is room for a message, which is sent next.

        Args:
            size: Bytes of its payload.
            timeout: Seconds; None for as long as it takes.

        Returns:
            Whether there is.

        Raises:
            RedisFull: Redis has no memory left, for longer than the program waits for it.
        """
        if not self.make_room(size, timeout):
            return False
        self.sent(size)
        return True

    def make_room(self, size: int, timeout: float | None = None) -> bool:
        """The same for a message that is not sent next, but told of by ``sent`` when it is."""
        return self.fits(size) or self._ask(size, timeout)

    def fits(self, size: int) -> bool:
        """Whether a message may be sent without asking."""
        return size + WEIGHT <= self._credit

    def sent(self, size: int) -> None:
        """A message is sent."""
        self._credit -= size + WEIGHT
        self._count += 1
        self._bytes += size + WEIGHT

    def _ask(self, size: int, timeout: float | None) -> bool:
        ticket = self.run.new_ticket()
        if self.ask(size, ticket):
            return True
        room = False
        try:
            room = self._wait(size, ticket, timeout)
            return room
        finally:
            if not room:  # its time is up, or it was interrupted
                self.run.store.defer(*self.run.command(LEAVE, [self.key], ticket))

    def _wait(self, size: int, ticket: str, timeout: float | None) -> bool:
        begun, told, wake = time.monotonic(), not self._tell, self.run.key("wake", ticket)
        while timeout is None or time.monotonic() - begun < timeout:
            left = ASK_AGAIN if timeout is None else min(ASK_AGAIN, timeout - (time.monotonic() - begun))
            self.run.store.wait(lambda seconds: ("BLPOP", wake, seconds), left)
            if self.ask(size, ticket):
                return True
            if not told and (waited := time.monotonic() - begun) > TELL_AFTER:
                told = True
                print(f"crosshost: a put has waited for {waited:.0f} s, as {self.most >> 20} MB lie in its queue and nobody "
                      "gets them. It goes on when somebody does.", file=sys.stderr, flush=True)  # fmt: skip
        return False

    def ask(self, size: int, ticket: str) -> bool:
        """Whether there is room now; if not, the ticket is among those that wait."""
        count, sent, self._count, self._bytes = self._count, self._bytes, 0, 0
        if not self.run.eval(self._ask_script, [self.key], self.most, count, sent, size + WEIGHT, ticket):
            return False
        self._credit = max(self._ahead, size + WEIGHT)
        return True

    def has_room(self, ticket: str) -> bool:
        """Whether something may be sent now, for who does not wait here."""
        return self._credit > 0 or self.ask(0, ticket)

    def before_take(self) -> list[tuple[Any, ...]]:
        """Commands for Redis to run first when a message is taken."""
        if self._taken < LOOK:
            return []
        self._taken = 0
        return [self.run.command(WAKE, [self.key], self.most)]

    def took(self, size: int) -> None:
        """A message was taken."""
        self._taken += size + WEIGHT
        if size > LARGE:
            self.run.store.post(*self.before_take()[0])
