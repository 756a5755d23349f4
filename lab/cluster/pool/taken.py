"""The queue of a pool's calls and answers, on the side of a worker: what it takes, holds and answers.

The three promises of ``lab.cluster.pool``, batches, no hoarding, no loss, are kept here and in the scripts below.
"""

from __future__ import annotations

import signal
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from multiprocessing import pool, util
from types import FrameType
from typing import Any, Protocol

from lab import buffers, byvalue, limit
from lab.cluster.failure import ExceptionWithTraceback, Failure
from lab.errors import BrokerUnreachable, CallOverdue, LabError, LeaseLost, WrongKey
from lab.fleet.counts import COUNTER
from lab.program import datafile, limits
from lab.store import run as runs
from lab.store.backlog import AHEAD as AHEAD_BYTES
from lab.store.backlog import MOST, Backlog
from lab.store.claimcheck import check_in, check_out, luggage_of, sealed
from lab.store.script import REGISTER, Script
from lab.store.wire import HEAD_SIZE, is_ticket

BATCH_SECONDS = 0.002
MAX_BATCH = 256
SEND_BYTES = 4096
SENTINEL = (1 << 64) - 1
DIVIDED = 1 << 63
"""Set in the number of an answer that is not the last: of a call that is many, and was divided."""

NUMBER = struct.Struct(">Q")
RESULT = struct.Struct(">QQ")

AHEAD = 8192
"""How far a call's number may be ahead of all that were handed out. Real ones are handed out in their order."""

MARK = f"""
local function number(blob) return #blob >= {HEAD_SIZE + 8} and struct.unpack('>I8', blob, {HEAD_SIZE + 1}) end
-- Excluded: a forged number that makes the bitmap as long as it says. What is too far ahead is handed out unmarked, and
-- refused by whoever opens it; and what was never marked is not made longer to be cleared.
local reach
local function mark(seen, n, bit)
  n, reach = n % 4294967296, reach or redis.call('STRLEN', seen) * 8
  if n >= reach + bit * {AHEAD} then return 0 end
  return redis.call('SETBIT', seen, n, bit)
end
"""

UNLESS_ENDED = """
-- Excluded: an answer of a process that was ended under its call, which would take the next off its list as answered.
if redis.call('SISMEMBER', string.sub(KEYS[3], 1, -6) .. 'ended', me) == 1 then error({err = 'LEASELOST ' .. me}) end
"""

EXCHANGE = Script(
    MARK
    + UNLESS_ENDED
    + """
local calls, taken, results, seen = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local finished, want, workers, moved = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[7] == '1'
local function first_time(blob)  -- a number that was handed out before is a replay, unless the pool has put it back
  local n = number(blob)
  if not n then return false end
  if mark(seen, n, 1) == 0 then return true end
  push(KEYS[7], blob)            -- or what came before was a forgery that used this number: see REFUSED
  return false
end
if ARGV[6] ~= '' then push(results, ARGV[6]) end
if finished > 0 then redis.call('LTRIM', taken, finished, -1) end
local got = {}
if moved then
  local blob = redis.call('LINDEX', taken, 0)
  if not blob then return {0} end  -- nothing came in time; what has come since is for the next move
  if first_time(blob) then got[1] = 1 else redis.call('DEL', taken) got[1] = 0 end
end
local waiting = want > 0 and redis.call('LLEN', calls) or 0
if waiting > 0 then
  local share = math.max(1, math.floor(waiting / workers))
  for _, blob in ipairs(redis.call('LPOP', calls, math.min(want, share))) do
    if first_time(blob) then redis.call('RPUSH', taken, blob) got[#got + 1] = blob end
  end
end
if moved then keep(taken) end
return got
""",
    fenced=True,
    kept=False,  # the worker's list says what it got
)

_GIVE_BACK = (
    MARK
    + UNLESS_ENDED
    + """
local calls, taken, results, seen = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
if ARGV[4] ~= '' then push(results, ARGV[4]) end
if tonumber(ARGV[3]) > 0 then redis.call('LTRIM', taken, ARGV[3], -1) end
while redis.call('LLEN', taken) > tonumber(ARGV[5]) do  -- from the last to the first, so that their order is kept
  local blob = redis.call('RPOP', taken)
  mark(seen, number(blob) or -1, 0)
  redis.call('LPUSH', calls, blob)
end
if ARGV[6] ~= '' and redis.call('LLEN', taken) == 1 then  -- of many calls, the one that runs
  redis.call('DEL', taken)
  redis.call('RPUSH', taken, ARGV[6])
end
keep(calls)
keep(taken)
"""
)
GIVE_BACK = Script(_GIVE_BACK + "return 1", fenced=True)

LAST_WORDS = Script(
    _GIVE_BACK
    + """
local late, tries, n = KEYS[8], KEYS[9], ARGV[7]
local earlier = tonumber(redis.call('HGET', tries, n) or 0)
redis.call('HSET', late, 'number', n, 'answer', ARGV[8], 'attempts', earlier + ARGV[9], 'retries', ARGV[10])
create(late)
return earlier
""",
    fenced=True,
)
"""Give back what is not begun, and lay down what a call is answered with if this process ends of its alarm (RECOVER)."""

REFUSED = Script(
    MARK
    + """
local n = number(ARGV[3])
if not n then return end
mark(KEYS[4], n, 0)
while true do                    -- what was taken for a replay may have been the real call
  local blob = redis.call('LPOP', KEYS[5])
  if not blob then break end
  push(KEYS[3], blob)
end
return 1
"""
)

here: TakenCalls | None = None
"""In a worker: what it takes its calls from."""


class Divisible(Protocol):
    """A call that is many, while it runs."""

    def divide(self) -> tuple[Any, Any] | None:
        """Keep what runs: the answer so far, and (function, arguments) of what is left; None if there is nothing else."""


class TakenCalls:
    """The queue of tasks, on the side of a worker: ``get`` for the stdlib's worker loop."""

    def __init__(self, name: str, workers: int) -> None:
        run = runs.current()
        assert run is not None
        self._run, self._workers = run, workers
        self.host = run.settings.host or "unknown"
        keys = [f"{name}:{part}" for part in ("calls", f"taken:{run.me}", "results", "seen", "parked")]
        self._ended = f"{name}:ended"
        self._last_words = [f"{name}:late:{run.me}", f"{name}:tries"]
        self._calls, self._taken, self._results, self._seen, self._parked = self._keys = keys
        self._unread = Backlog(run, self._results, frees=True, ahead=max(AHEAD_BYTES, MOST // workers))
        self._batch: deque[bytes] = deque()
        self._unsent: list[Any] = []
        self._unsent_bytes = self._finished = 0
        self._running = False
        self._seconds = 0.0  # moving average of what a task takes
        self._begun = self._exchanged = time.perf_counter()
        self._number = 0
        self._many: Divisible | None = None  # what runs, if it can be divided
        self._counts_itself = False
        self._packer = buffers.Packer(kind=byvalue.ResultPickler)
        self._changed = threading.Condition()
        self._guard: threading.Thread | None = None
        self._finalizer: util.Finalize | None = None

    def get(self) -> Any:
        """The next task, or None to end."""
        global here
        if self._finalizer is None:  # not before: the bootstrap of a process clears what was registered earlier
            self._finalizer = util.Finalize(self, self._leave, exitpriority=10)
            limit.host = here = self
            self._run.post(REGISTER, [self._taken])  # not before: it says that the initializer is done
        while True:
            with self._changed:
                blob = self._batch.popleft() if self._batch else None
                self._running = blob is not None
            if blob is None:
                self._refill()
                continue
            task = self._open(blob)
            if task is None:
                self._finish()  # a sentinel is done with once it is read
            if task is not _REFUSED:
                return task

    def _open(self, blob: bytes) -> Any:
        self._begun = time.perf_counter()
        try:
            payload = self._run.unseal(self._calls, blob)
        except WrongKey as exc:
            print(f"crosshost: {exc}", file=sys.stderr)
            self._finish()
            self._run.post(REFUSED, [self._calls, self._seen, self._parked], blob)
            return _REFUSED
        (self._number,) = NUMBER.unpack_from(blob, HEAD_SIZE)
        try:
            return buffers.loads(check_out(self._run, blob, NUMBER.size, keep=True) if is_ticket(blob) else payload)
        except (BrokerUnreachable, LeaseLost):
            raise  # no matter of this call's
        except Exception as exc:  # noqa: BLE001 - a task that cannot be loaded costs its own caller an error, nobody else
            exc.add_note(f"while loading a call on host {self.host}")
            self.answer((False, Failure.of(exc)))
            return _REFUSED

    def share(self, many: Divisible) -> None:
        """The running call is many, and counts them; what is not begun is given back when it would have to wait."""
        with self._changed:
            self._many, self._counts_itself = many, True
            self._watch()

    def answer(self, outcome: tuple[bool, Any]) -> None:
        """The outcome of the running task; raises what pickling it raises, and then the task still runs."""
        if not outcome[0]:
            exc = getattr(outcome[1], "exc", outcome[1])
            datafile.mark(exc)
            limits.mark(exc)
        parts = self._packer.dumps(outcome)
        size = buffers.size(parts)
        elapsed = time.perf_counter() - self._begun
        self._seconds = elapsed if not self._seconds else 0.8 * self._seconds + 0.2 * elapsed
        if not self._counts_itself:
            COUNTER.call(elapsed, outcome[0])
        self._unread.make_room(size)  # while it waits, the guard sends what is done and gives back the rest
        self._finish(RESULT.pack(self._number, size), *parts)

    def before_limited(self, error: CallOverdue, failed: int, retries: int) -> int:
        """Be ready to be ended under the running call (``lab.limit``); attempts that ended with other processes.

        Excluded: another call, in the batch or done and not yet answered, that is lost with this process and run again.
        """
        parts = self._packer.dumps((False, error))
        with self._changed:
            message = check_in(self._run, RESULT.pack(self._number, buffers.size(parts)), *parts, waits=False)
            words = (self._number, sealed(self._run, self._results, message), failed + 1, retries)
            earlier = self._run.eval(LAST_WORDS, [*self._keys, *self._last_words], *self._given_back(), *words)
            self._sent()
            return int(earlier)

    def await_the_end(self) -> None:
        """If this process was ended under its call (``ending``), be quiet until the signal comes that does it.

        Excluded: a call that comes to its end just before that, and a process that then tells why it is refused.
        """
        with suppress(LabError):
            if self._run.store.call("SISMEMBER", self._ended, self._run.me):
                time.sleep(self._run.settings.lease)

    def answered_with(self, exc: BaseException) -> bool:
        """Answer the running call with what ends this process; whether there was one, and it was the call's."""
        if not self._running or isinstance(exc, (BrokerUnreachable, LeaseLost)):
            return False
        self.answer((False, Failure.of(exc)))
        self._leave()  # now, as what runs at exit may take its time
        return True

    def _finish(self, *result: Any) -> None:
        with self._changed:
            self._running = self._counts_itself = False
            self._many = None
            self._finished += 1
            self._unsent += result
            self._unsent_bytes += sum(map(len, result))
            # With more to do, do not keep the pool waiting: for what took long, or takes it long to read.
            if self._batch and (
                self._unsent_bytes > SEND_BYTES or time.perf_counter() - self._exchanged > BATCH_SECONDS
            ):
                self._send()

    def _send(self) -> None:
        """Send the answers gathered so far, without waiting for the reply."""
        self._run.store.post(*self._exchange())
        self._sent()

    def _sent(self) -> None:
        if self._finished:
            COUNTER.show()
        self._unsent.clear()
        self._unsent_bytes = self._finished = 0
        self._exchanged = time.perf_counter()

    def _refill(self) -> None:
        """Answer what was done and take the next, in one round trip: it ends when there is something to do."""
        want = max(1, min(MAX_BATCH, int(BATCH_SECONDS / self._seconds))) if self._seconds else 1
        with self._changed:
            answer = self._exchange() if self._finished else None
            self._sent()
        move = ("BLMOVE", self._calls, self._taken, "LEFT", "RIGHT")
        take = self._run.command(EXCHANGE, self._keys, 0, want - 1, self._workers, b"", 1)
        before = [answer] if answer else []
        recover = partial(self._recover, before, take)
        instead = partial(self._take_now, want)
        replies = self._run.store.wait(lambda left: (*move, left), None, before, [take], recover, instead)
        assert replies is not None
        blob, (fresh, *more) = replies
        with self._changed:
            self._exchanged = time.perf_counter()
            self._batch.extend([blob, *more] if fresh else more)
            if len(self._batch) > 1:
                self._watch()

    def _take_now(self, want: int) -> list[Any] | None:
        """Take without waiting, which Redis does not refuse when it has no memory left; as replies to the other way."""
        got = self._run.eval(EXCHANGE, self._keys, 0, want, self._workers, b"", 0)
        if not isinstance(got, list):  # the reply was lost, and is not kept
            got = self._run.store.call("LRANGE", self._taken, 0, -1)
        return [got[0], [1, *got[1:]]] if got else None

    def _recover(self, before: list[Any], take: tuple[Any, ...], applied: int) -> list[Any] | None:
        """The replies that a broken connection swallowed: the taken list has been emptied by the answer, if that arrived."""
        store = self._run.store
        if applied <= len(before):
            if not applied and before:
                store.call(*before[0])
            if store.call("LINDEX", self._taken, 0) is None:
                return None
            store.call(*take)
        blobs = store.call("LRANGE", self._taken, 0, -1)
        return [blobs[0], [1, *blobs[1:]]] if blobs else [b"", [0]]

    def _exchange(self) -> tuple[Any, ...]:
        return self._run.command(EXCHANGE, self._keys, self._finished, 0, self._workers, self._sealed(), 0)

    def _sealed(self) -> Any:
        if not self._unsent:
            return b""
        self._unread.sent(self._unsent_bytes)
        return sealed(self._run, self._results, check_in(self._run, *self._unsent, waits=False))

    def _watch(self) -> None:
        if self._guard is None:
            self._guard = threading.Thread(target=self._guard_batch, name="crosshost-pool-guard", daemon=True)
            self._guard.start()
        self._changed.notify()

    def _guard_batch(self) -> None:
        """Keep nobody waiting: give back what a slow task holds up, and send what is done."""
        with self._changed:
            while True:
                self._changed.wait_for(self._holding)
                seen = self._exchanged
                if self._changed.wait_for(partial(self._exchanged_since, seen), BATCH_SECONDS * 2):
                    continue
                # Excluded, by holding the condition: the worker taking a task from the batch while it is given back.
                if self._holding():
                    with suppress(LabError):  # the worker meets it too, and ends; what it holds is put back then
                        self._give_back()

    def _holding(self) -> bool:
        return bool(self._batch or self._unsent or self._many)

    def _exchanged_since(self, then: float) -> bool:
        return self._exchanged != then

    def _give_back(self) -> None:
        self._run.post(GIVE_BACK, self._keys, *self._given_back())
        self._sent()

    def _given_back(self) -> tuple[Any, ...]:
        """What the scripts are told that give back all but the running call; no other is here any more."""
        self._batch.clear()
        runs = self._divided()  # first: it adds to what is sent
        return self._finished, self._sealed(), int(self._running), runs

    def _divided(self) -> Any:
        """Have the running call be one, if it is many; what lies in its place in Redis from now on, if this is not empty.

        Excluded: calls that are done, or were given back, and run again as this process dies.
        """
        many, self._many = self._many, None
        if many is None or (divided := many.divide()) is None:
            return b""
        answer, call = divided
        message = check_in(self._run, *buffers.dumps((0, 0, *call, {})), waits=False)  # the pool knows it by its number
        parts = buffers.dumps((True, (answer, luggage_of(message))))
        size = buffers.size(parts)
        self._unsent += RESULT.pack(self._number | DIVIDED, size), *parts
        self._unsent_bytes += RESULT.size + size
        return sealed(self._run, self._calls, message, NUMBER.pack(self._number))

    def _leave(self) -> None:
        with self._changed:
            if self._batch or self._unsent or self._finished:
                self._give_back()

    def __reduce__(self) -> tuple[Any, ...]:
        raise NotImplementedError("a worker's side of a pool cannot be sent on")


_REFUSED = object()


class SentAnswers:
    """The queue of results, on the side of a worker: ``put`` for the stdlib's worker loop."""

    def __init__(self, calls: TakenCalls) -> None:
        self._calls = calls

    def put(self, answer: tuple[int, int, tuple[bool, Any]]) -> None:
        """Send (job, index, (success, value)); the first two are known from the task's number."""
        success, value = answer[2]
        self._calls.answer((success, Failure(value) if isinstance(value, ExceptionWithTraceback) else value))


def work(calls: TakenCalls, answers: SentAnswers, *args: Any) -> None:
    """The stdlib's loop of a worker; a call that ends its process by an exception is answered with that exception first.

    The stdlib answers with what is an Exception. Anything else (SystemExit, KeyboardInterrupt, or what repr raises of a
    result that does not pickle) ends the loop, and the call would be lost, or run again by another worker. The process does
    end: that is what the call asked for, and the pool replaces it.
    """
    interrupted = _Interrupted()
    try:
        _worker(calls, answers, *args)
    except BaseException as exc:
        if isinstance(exc, LeaseLost):
            calls.await_the_end()
        if (interrupted.yes and isinstance(exc, KeyboardInterrupt)) or not calls.answered_with(exc):
            raise
        if isinstance(exc, SystemExit):
            raise
        sys.exit(1)  # without the traceback, which the caller has


_worker: Any = vars(pool)["worker"]  # not among the stubs


class _Interrupted:
    """Whether this process was sent SIGINT: then a KeyboardInterrupt is no outcome of a call, but the end of the program."""

    yes = False

    def __init__(self) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.yes = True
        signal.default_int_handler(signum, frame)
