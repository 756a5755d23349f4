"""Ending a call before its end: one that nobody has taken is taken back, one that runs ends with its process.

A process is ended only for a call that is all it has: then nothing else can be running there. What else it had taken it
gives back by itself, in some milliseconds (``taken``), unless C code keeps the GIL; then the call is asked for again, until
it is alone, or done.

On Redis: the lists of ``lab.cluster.pool``, and set ``:ended``, the processes that were ended.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lab.cluster.pool.pending import Calls
from lab.cluster.pool.taken import MARK
from lab.errors import LabError
from lab.store.script import Script

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two looks for a call that could not be ended yet."""

END = Script(
    MARK
    + """
local calls, count = KEYS[3], tonumber(ARGV[3])
local pool, wanted, left = string.sub(calls, 1, -6), {}, {}
for i = 4, 3 + count do wanted[tonumber(ARGV[i])] = true end
for _, blob in ipairs(redis.call('LRANGE', calls, 0, -1)) do
  if wanted[number(blob)] then redis.call('LREM', calls, 1, blob) end
end
for i = 4 + count, #ARGV, 2 do
  local worker = ARGV[i]
  local taken = pool .. 'taken:' .. worker
  local held = redis.call('LRANGE', taken, 0, -1)
  for _, blob in ipairs(held) do
    if wanted[number(blob)] and #held > 1 then
      left[#left + 1] = number(blob)
    elseif wanted[number(blob)] then
      -- Excluded, by doing all of this in one step: the process being done with it just now, and killed under the next. From
      -- here on the pool takes nothing from it and gives it nothing to do; what it has moved to its list is put back.
      redis.call('DEL', taken)
      redis.call('SADD', pool .. 'ended', worker)
      keep(pool .. 'ended')
      local inbox = alive(worker) and redis.call('HGET', base .. 'process:' .. worker, 'inbox')
      if inbox then push(inbox, worker .. ' ' .. ARGV[i + 1]) end
    end
  end
end
return left
"""
)


class Ending:
    """The calls of a pool that are to end.

    Args:
        calls: The pool's.
        workers: Tells the ids of its processes.
    """

    def __init__(self, calls: Calls, workers: Callable[[], list[str]]) -> None:
        self._calls, self._workers = calls, workers
        self._wanted: set[int] = set()
        self._lock = threading.Lock()
        self._runs = False

    def end(self, n: int) -> None:
        """End a call, soon, in a thread."""
        with self._lock:
            self._wanted.add(n)
            if not self._runs:
                with suppress(RuntimeError):  # the interpreter ends, and the processes with it
                    threading.Thread(target=self._end_all, name="crosshost-pool-ending", daemon=True).start()
                    self._runs = True

    def _end_all(self) -> None:
        pause = FIRST_PAUSE
        while wanted := self._still_wanted():
            try:
                ended = self._look(wanted)
            except LabError:
                ended = wanted  # Redis is away or gone: so are the processes, within their leases
            with self._lock:
                self._wanted -= ended
            pause = FIRST_PAUSE if ended else min(2 * pause, LONGEST_PAUSE)
            time.sleep(pause if self._wanted else 0)

    def _still_wanted(self) -> set[int]:
        with self._lock:  # excluded: one that is added just as this thread ends
            self._runs = bool(self._wanted)
            return set(self._wanted)

    def _look(self, wanted: set[int]) -> set[int]:
        """End those that can be ended now; which of them are over."""
        run, sent = self._calls.run, {n for n in wanted if self._calls.sent(n)}
        processes = [part for worker in self._workers() for part in (worker, self._kill(worker))]
        left = run.eval(END, [self._calls.key("calls")], len(wanted), *wanted, *processes)
        return sent.difference(left)

    def _kill(self, worker: str) -> bytes:
        """The signal to the host of a process."""
        run = self._calls.run
        sealed: bytes = run.seal(run.key("commands", worker), str(int(signal.SIGKILL)).encode())
        return sealed
