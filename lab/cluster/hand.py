"""Taking from a list so that nothing is lost when the reply is.

A blocking pop takes an item out of Redis before anybody knows that the reply will arrive. Here the item moves to a list of
the thread that takes it, its *hand*, and stays there until the thread takes the next one. If the connection breaks, the hand
tells what was taken.

On Redis: lists ``hand:PROCESS-N:0`` and ``hand:PROCESS-N:1``, used in turn, as each is emptied by the take after the next
one's begin; BLMOVE and a script. Set ``hands:PROCESS``, for who buries the process.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lab.cluster.script import Script
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.cluster.run import Run

OPEN = Script("""
local hands = base .. 'hands:' .. me
redis.call('SADD', hands, KEYS[3], KEYS[4])
create(hands)
create(KEYS[3])
create(KEYS[4])
""")

FORGET = Script("""
redis.call('SREM', base .. 'hands:' .. me, KEYS[3], KEYS[4])
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('SREM', registry, KEYS[3], KEYS[4])
""")

MORE = Script(
    """
-- Excluded: taking what came just after the time for the first was up.
if redis.call('EXISTS', KEYS[4]) == 0 then return {} end
local more = redis.call('LPOP', KEYS[3], ARGV[3]) or {}
if #more > 0 then redis.call('RPUSH', KEYS[4], unpack(more)) end
keep(KEYS[4])
return more
""",
    numbered=False,  # the hand tells what it did
)

PUT_BACK = Script("""
while true do
  local blob = redis.call('RPOP', KEYS[4])
  if not blob then break end
  redis.call('LPUSH', KEYS[3], blob)
end
redis.call('UNLINK', KEYS[5])
keep(KEYS[3])
""")


class Hand:
    """What one thread has taken.

    Args:
        run: The run whose lists it takes from.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.pid = run, os.getpid()
        name = run.key("hand", f"{run.me}-{secrets.token_hex(4)}")
        self._full, self._empty = f"{name}:0", f"{name}:1"
        self._unfinished = ""
        run.post(OPEN, [self._full, self._empty])

    def __del__(self) -> None:
        # the thread has ended; a forked copy of its hand is none of this process's business
        if self.pid == os.getpid():
            self._run.store.defer(*self._run.command(FORGET, [self._full, self._empty]))

    def take(self, source: str, timeout: float | None, most: int = 1) -> list[bytes]:
        """Take the first item of a list, and those behind it.

        Args:
            source: The list.
            timeout: Seconds to wait for the first item; None for as long as it takes.
            most: How many to take at once, of those that are there.

        Returns:
            The items; none if there was none in time.
        """
        if self._unfinished:
            self._put_back()
        self._full, self._empty = self._empty, self._full
        try:
            return self._take(source, timeout, most)
        except BaseException:
            # Excluded: an item that nobody has, as it was taken for a thread that was interrupted and will not look.
            self._unfinished = source
            if not self._run.store.outage.on:
                with suppress(LabError):
                    self._put_back()
            raise

    def _put_back(self) -> None:
        self._run.store.end_wait()
        self._run.eval(PUT_BACK, [self._unfinished, self._full, self._empty])
        self._unfinished = ""

    def _take(self, source: str, timeout: float | None, most: int) -> list[bytes]:
        hand, other = self._full, self._empty

        def move(left: float) -> tuple[Any, ...]:
            self._run.check_memory()  # who waits for what is no more is told
            if timeout is not None and timeout <= 0:
                return ("LMOVE", source, hand, "LEFT", "RIGHT")
            return ("BLMOVE", source, hand, "LEFT", "RIGHT", left)

        def recover(_applied: int) -> list[Any] | None:
            self._run.check()
            _, taken = self._run.store.pipeline([("UNLINK", other), ("LRANGE", hand, 0, -1)])
            return [taken[0], taken[1:]] if taken else None

        keep = ("PEXPIRE", hand, self._run.ttl)
        more = self._run.command(MORE, [source, hand], most - 1) if most > 1 else keep
        reply = self._run.store.wait(move, timeout, before=[("UNLINK", other)], after=[more], recover=recover)
        if not reply:
            return []
        return [reply[0], *reply[1]] if most > 1 else reply[:1]
