"""Pool: the stdlib's own, on processes of the fleet; only its two queues are ours.

``multiprocessing.pool.Pool`` is N processes, a queue of tasks, a queue of results, and three threads that keep them going.
Everything a user sees of it (map, imap, callbacks, chunks, tracebacks, close, terminate, join) is that code. The queues
are where a pool across hosts gains or loses, so they do three things that a pipe does not need:

* **Batches.** A worker takes as many tasks as make about 2 ms of work, by the measured time of a task, and never more than
  its share of what waits. It answers them and takes the next in one round trip.
* **No hoarding.** When a task takes longer than expected, a thread of the worker sends the answers it has and gives back
  the tasks it has not begun, so that idle workers can have them.
* **No loss.** Taking moves a task to a list of its worker's own. When the worker dies, the pool puts back what that list
  holds. Every task has a number: it is handed out once unless it was put back, and its result counts once. A task whose
  worker died three times under it ends as WorkerLost, the others' results are kept.

On Redis, for a pool ``pool:ID``: list ``:calls``, list ``:results``, list ``:taken:WORKER``, bitmap ``:seen``, list
``:parked`` (taken for replays), hash ``:deaths``.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import queue
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import context, pool, reduction, util
from typing import Any

import lab
from lab.cluster import run as runs
from lab.cluster.claimcheck import DISCARD, SWEEP, check_in, check_out, luggage_of
from lab.cluster.process import Process
from lab.cluster.run import Run
from lab.cluster.script import PUSH, REGISTER, Script
from lab.cluster.store import GRACE
from lab.cluster.wire import LARGE, MAC_SIZE
from lab.errors import BrokerUnreachable, CannotLoad, LabError, LeaseLost, WorkerLost, WrongKey

BATCH_SECONDS = 0.002
MAX_BATCH = 256
MAX_DEATHS = 3
"""Processes that die under a call before it is given up."""
MAX_LOSSES = 12
"""The same for processes that were lost with their hosts, which is hardly the call's doing: four count as one."""
SEND_AT_ONCE = 200
ALONE_SECONDS = 0.0002
TRY_AGAIN = 5.0
"""Seconds after which a pool looks again for a slot for a worker that found none."""
SEND_BYTES = 4096
NAMES = ("seen", "calls", "results", "parked", "deaths")
SENTINEL = (1 << 64) - 1

_NUMBER = struct.Struct(">Q")
_RESULT = struct.Struct(">QI")
_loads = reduction.ForkingPickler.loads

OPEN = Script("""
redis.call('SETBIT', KEYS[3], 0, 0)  -- from now on it is there, with an expiry
for i = 3, #KEYS do create(KEYS[i]) end
return 1
""")

_NUMBER_OF = (
    f"local function number(blob) return #blob >= {MAC_SIZE + 8} and struct.unpack('>I8', blob, {MAC_SIZE + 1}) end"
)

EXCHANGE = Script(
    _NUMBER_OF
    + """
local calls, taken, results, seen = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local finished, want, workers, moved = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[7] == '1'
local function first_time(blob)  -- a number that was handed out before is a replay, unless the pool has put it back
  local n = number(blob)
  if not n then return false end
  if redis.call('SETBIT', seen, n % 4294967296, 1) == 0 then return true end
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

GIVE_BACK = Script(
    _NUMBER_OF
    + """
local calls, taken, results, seen = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
if ARGV[4] ~= '' then push(results, ARGV[4]) end
if tonumber(ARGV[3]) > 0 then redis.call('LTRIM', taken, ARGV[3], -1) end
while redis.call('LLEN', taken) > tonumber(ARGV[5]) do  -- from the last to the first, so that their order is kept
  local blob = redis.call('RPOP', taken)
  redis.call('SETBIT', seen, number(blob) % 4294967296, 0)
  redis.call('LPUSH', calls, blob)
end
keep(calls)
keep(taken)
return 1
""",
    fenced=True,
)

REFUSED = Script(
    _NUMBER_OF
    + """
local n = number(ARGV[3])
if not n then return end
redis.call('SETBIT', KEYS[4], n % 4294967296, 0)
while true do                    -- what was taken for a replay may have been the real call
  local blob = redis.call('LPOP', KEYS[5])
  if not blob then break end
  push(KEYS[3], blob)
end
return 1
"""
)

RECOVER = Script(
    _NUMBER_OF
    + """
local calls, taken, seen, deaths = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local given_up, ready = -1, redis.call('SISMEMBER', registry, taken)
while true do
  local blob = redis.call('RPOP', taken)
  if not blob then break end
  local n, put_back = number(blob), true
  if redis.call('LLEN', taken) == 0 then     -- the first of the list is the one that was running
    put_back = redis.call('HINCRBY', deaths, n, ARGV[3]) < tonumber(ARGV[4])
    if not put_back then given_up = n end
  end
  if put_back then
    redis.call('SETBIT', seen, n % 4294967296, 0)
    redis.call('LPUSH', calls, blob)
  end
end
keep(calls)
keep(deaths)
return {given_up, ready}
"""
)

DROP = Script("redis.call('UNLINK', KEYS[3]) return 1")


class Pool(pool.Pool):
    """A pool of processes on the fleet's hosts.

    On Redis: see above; PUSH from the pool, one BLMOVE with EXCHANGE before and after it from a worker, BLMOVE for the
    results.

    Differs from multiprocessing: a worker that dies takes no call with it (see above); in multiprocessing the caller then
    waits for ever. Each worker holds a slot of the fleet until the pool is closed.

    Raises:
        NotEnoughSlots: The fleet has fewer free slots than the pool has processes.
    """

    _told = False
    _in_a_row = 0

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        if context is None:
            context = lab.get_context("cluster")
        self._run: Run = context.connect()
        self._workers = context.cpu_count() if processes is None else processes
        self._load_error: CannotLoad | None = None
        self.Process = self._new_worker  # type: ignore[method-assign,assignment]
        # The stdlib's context for the one thing that stays in this process: the pipe that wakes its threads.
        local = multiprocessing.get_context("fork")
        super().__init__(self._workers, initializer, initargs, maxtasksperchild, context=local)
        context.pools.add(self)  # closing the context ends a pool that was left running

    def _setup_queues(self) -> None:
        self._calls = Calls(self._run, self._run.new_name("pool"), max(1, self._workers))
        self._answers = Answers(self._calls, self._settle)
        self._inqueue, self._outqueue = self._calls, self._answers
        self._quick_put, self._quick_get = self._calls.put, self._answers.get

    def _get_sentinels(self) -> list[Any]:
        return [self._change_notifier._reader]  # type: ignore[attr-defined]

    def _new_worker(self, _ctx: Any, *args: Any, **kwds: Any) -> PoolWorker:
        worker = PoolWorker(*args, **kwds)
        worker.on_join = self._recover
        worker.unloadable = self._load_error
        if self._state != pool.INIT:  # type: ignore[attr-defined]  # closing too: its last calls may lose a worker
            worker.on_failure = self._not_replaced
        return worker

    def _not_replaced(self, exc: LabError) -> None:
        """A worker that ended has no successor: go on with the others, or fail if there is none."""
        if not self._told:
            print(f"crosshost: a worker of the pool could not be replaced: {exc}", file=sys.stderr)
            self._told = True  # it is tried again, and again
        alive = any(worker.pid and worker.is_alive() for worker in self._pool)  # type: ignore[attr-defined]
        self._in_a_row = 0 if alive else self._in_a_row + 1
        # once may be a fleet that is just coming back; but a pool that is closing starts no worker again
        patient = self._in_a_row == 1 and self._state == pool.RUN  # type: ignore[attr-defined]
        if isinstance(exc, BrokerUnreachable) or not (alive or patient):
            self._answers.fail_pending(exc)

    def _recover(self, worker: PoolWorker) -> bool:
        """Put back what a worker that ended had taken; whether it had come so far as to ask for work.

        If its host could not load it, the pool gives up.
        """
        if worker.load_error is not None:
            # A successor would end in the same way, and so on for ever: multiprocessing's pool does that.
            self._load_error = worker.load_error
            self._answers.fail_pending(worker.load_error)
        try:
            given_up, ready = self._calls.recover(worker.process_id, worker.host_lost)
        except BrokerUnreachable as exc:
            self._answers.fail_pending(exc)
            return True
        if given_up is not None:
            job, index = given_up
            lost = WorkerLost(
                f"Call {index} of job {job} was given up: {MAX_DEATHS} processes that took it died"
                f" (the last: exit code {worker.exitcode}, on {worker.host}).",
                "Run the same call in this process to see why: it exits, crashes, or uses more memory than there is.",
            )
            self._settle(job, index, (False, lost))
        return ready

    def _settle(self, job: int, index: int, outcome: tuple[bool, Any]) -> None:
        result = self._cache.get(job)  # type: ignore[attr-defined]
        if result is not None:
            result._set(index, outcome)

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        inqueue.drop()

    @classmethod
    def _terminate_pool(cls, taskqueue: Any, inqueue: Any, outqueue: Any, pool: Any, *args: Any) -> None:
        workers = [worker.process_id for worker in pool]
        super()._terminate_pool(taskqueue, inqueue, outqueue, pool, *args)  # type: ignore[misc]
        inqueue.discard(workers)


_OF_THE_POOL = ("on_join", "on_failure", "unloadable")


class PoolWorker(Process):
    """A worker process; the pool hears of its end when the stdlib's pool joins it."""

    on_join: Callable[[PoolWorker], object] | None = None
    on_failure: Callable[[LabError], None] | None = None
    unloadable: CannotLoad | None = None

    def start(self) -> None:
        """Start it; the successor of a worker, started in a thread of the pool, has nobody to raise an error to."""
        if self.unloadable is not None:
            self._popen = _NeverStarted()
            self._sentinel = self._popen.sentinel
            return
        try:
            super().start()
        except LabError as exc:
            if self.on_failure is None:
                raise
            self._popen = _NeverStarted()
            self._sentinel = self._popen.sentinel
            self.on_failure(exc)

    @property
    def process_id(self) -> str:
        """Its id in the run."""
        return str(self._popen.process_id)

    @property
    def host_lost(self) -> bool:
        """Whether it ended because its host did."""
        return self._popen.host_lost

    @property
    def load_error(self) -> CannotLoad | None:
        """Why its host could not load it, if that is how it ended."""
        return self._popen.load_error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; then what it had taken goes back to the pool."""
        super().join(timeout)
        if self.exitcode is not None and self.on_join:
            on_join, self.on_join = self.on_join, None
            on_join(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_POOL}


class _NeverStarted:
    """Takes the place of a worker that could not be started, for a while: then it ends, and the pool tries again."""

    process_id, pid, host, load_error, host_lost = "", 0, "", None, False

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.sentinel, self._write_end = os.pipe()
        self._timer = threading.Timer(TRY_AGAIN, self._end)
        self._timer.daemon = True
        self._timer.start()
        util.Finalize(self, _close_both, (self.sentinel, self._write_end))

    def _end(self) -> None:
        self.returncode = 1
        os.write(self._write_end, b"!")  # wakes the pool, which waits for its workers' ends

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._timer.cancel()
        self.returncode = 1
        return 1

    terminate = kill = close = wait


def _close_both(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class _Pickler:
    """``ForkingPickler.dumps`` without a new pickler for every object, which costs more than a small object itself."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._buffer = io.BytesIO()
        self._pickler = reduction.ForkingPickler(self._buffer)

    def dumps(self, obj: Any) -> bytes | memoryview:
        """The pickled object; raises what pickling it raises."""
        try:
            self._pickler.dump(obj)
        except BaseException:
            self._begin()
            raise
        if self._buffer.tell() < LARGE:
            data = self._buffer.getvalue()
            self._buffer.seek(0)
            self._buffer.truncate()
            self._pickler.clear_memo()
            return data
        view = self._buffer.getbuffer()
        self._begin()
        return view


class Calls:
    """The queue of tasks, on the side of the pool; pickled, it becomes ``TakenCalls``."""

    def __init__(self, run: Run, name: str, workers: int) -> None:
        self.run, self.name, self.workers = run, name, workers
        self.pending: dict[int, tuple[int, int]] = {}
        self._luggage: dict[int, str] = {}  # where the large ones of those that are pending lie
        self._numbers = itertools.count()
        self._buffer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._feeder: threading.Thread | None = None
        self._sent = 0
        self._last_put = 0.0
        self._pickler = _Pickler()
        self._broken: LabError | None = None
        self.on_broken: Callable[[LabError], None] = lambda _: None
        run.post(OPEN, list(map(self.key, NAMES)))

    def key(self, *names: str) -> str:
        """A key of this pool."""
        return ":".join((self.name, *names))

    def put(self, task: Any) -> None:
        """Append a task, or None to end a worker. Returns at once; the feeder sends."""
        if self._broken is not None and task is None:
            return  # there is no worker left to end, or no way to tell it
        pickled = self._pickler.dumps(task)
        n = next(self._numbers)
        if task is not None:
            self.pending[n] = task[:2]
            # Excluded: a call that begins to wait just after all that wait have failed. Whoever takes it from ``pending``
            # tells its caller.
            if self._broken is not None:
                if self.end(n) is not None:
                    raise self._broken
                return
        message = check_in(self.run, pickled)
        if luggage := luggage_of(message):
            self._luggage[n] = luggage
        blob = self.run.seal(self.key("calls"), _NUMBER.pack(n), *message)
        before, self._last_put = self._last_put, time.perf_counter()
        alone = self._last_put - before > ALONE_SECONDS or len(pickled) > SEND_BYTES
        if self._sent == n and (alone or not self._has_feeder()):
            # A call that comes alone, or is large, is sent here and now; small ones in a burst are gathered by the feeder.
            # Excluded, by the count: overtaking a call that the feeder has yet to send.
            self._sent += 1
            self.run.post(PUSH, [self.key("calls")], blob)
            return
        self._has_feeder()
        self._buffer.put(blob)

    def _has_feeder(self) -> bool:
        """Whether there is a feeder; starts it, unless the interpreter is ending and starts no more threads."""
        if self._feeder is None:
            feeder = threading.Thread(target=self._feed, name="crosshost-pool-feeder", daemon=True)
            with suppress(RuntimeError):
                feeder.start()
                self._feeder = feeder
        return self._feeder is not None

    def _feed(self) -> None:
        """Send what has gathered while the last batch was sent."""
        while (blob := self._buffer.get()) is not None:
            blobs = [blob]
            while len(blobs) < SEND_AT_ONCE and not self._buffer.empty() and (blob := self._buffer.get()) is not None:
                blobs.append(blob)
            try:
                self.run.post(PUSH, [self.key("calls")], *blobs)
            except LabError as exc:
                self.on_broken(exc)  # whoever reads the answers may just have found Redis again
                return
            self._sent += len(blobs)
            if blob is None:
                return

    def end(self, n: int) -> tuple[int, int] | None:
        """Take a call off those that are pending, once; its job and index."""
        if luggage := self._luggage.pop(n, None):
            self.quietly(DISCARD, [luggage])
        return self.pending.pop(n, None)

    def held_by(self, worker: str) -> set[int]:
        """The numbers of the calls that a worker has taken and not answered."""
        taken = self.run.store.call("LRANGE", self.key("taken", worker), 0, -1)
        return {_NUMBER.unpack_from(blob, MAC_SIZE)[0] for blob in taken}

    def recover(self, worker: str, host_lost: bool) -> tuple[tuple[int, int] | None, bool]:
        """Put back what a dead worker had taken; the call that was given up, if any, and whether it had begun to work."""
        taken = self.key("taken", worker)
        keys = [self.key("calls"), taken, self.key("seen"), self.key("deaths")]
        blame = 1 if host_lost else MAX_LOSSES // MAX_DEATHS
        given_up, ready = self.run.eval(RECOVER, keys, blame, MAX_LOSSES)
        self.run.post(DISCARD, [taken])
        return self.end(given_up), bool(ready)

    def drop(self) -> None:
        """Forget every task that no worker has taken."""
        with suppress(queue.Empty):
            while True:
                self._buffer.get_nowait()
        self.quietly(DROP, [self.key("calls")])

    def discard(self, workers: list[str]) -> None:
        """Delete the pool's keys, and end the feeder."""
        self._buffer.put(None)
        if self._feeder is not None:
            self._feeder.join(GRACE)
        keys = [*map(self.key, NAMES), *(self.key("taken", worker) for worker in workers)]
        self.quietly(SWEEP, [self.key("results")])
        self.quietly(DISCARD, [*keys, *self._luggage.values()])

    def quietly(self, script: Script, keys: list[str], *args: Any) -> None:
        """Tell Redis, if it is still there; if not, the keys expire."""
        try:
            self.run.post(script, keys, *args)
        except LabError:
            return

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return TakenCalls, (self.name, self.workers)


class Answers:
    """The queue of results, on the side of the pool; pickled, it becomes ``SentAnswers``."""

    def __init__(self, calls: Calls, settle: Callable[[int, int, tuple[bool, Any]], None]) -> None:
        self._calls, self._settle = calls, settle
        self._ready: deque[Any] = deque()
        calls.on_broken = self.fail_pending

    def put(self, sentinel: None) -> None:
        """Wake the thread that reads: the pool puts nothing but None here."""
        key = self._calls.key("results")
        message = self._calls.run.seal(key, *check_in(self._calls.run, _RESULT.pack(SENTINEL, 0)))
        self._calls.quietly(PUSH, [key], message)  # were Redis gone, the thread would find that out by itself

    def get(self) -> Any:
        """The next result as (job, index, (success, value)), or None.

        Raises:
            BrokerUnreachable: Redis is gone; every pending call has failed with the same error.
        """
        while not self._ready:
            try:
                self._receive()
            except LabError as exc:
                self.fail_pending(exc)
                raise
        return self._ready.popleft()

    def _receive(self) -> None:
        run, key = self._calls.run, self._calls.key("results")
        for blob in run.take(key, None, 16):
            try:
                self._unpack(check_out(run, run.unseal(key, blob)))
            except WrongKey as exc:
                print(f"crosshost: {exc}", file=sys.stderr)

    def _unpack(self, payload: memoryview) -> None:
        at = 0
        while at < len(payload):
            n, size = _RESULT.unpack_from(payload, at)
            at += _RESULT.size
            if n == SENTINEL:
                self._ready.append(None)
            # Excluded: counting a result twice, when a call was put back although its worker had answered.
            elif (call := self._calls.end(n)) is not None:
                self._ready.append((*call, _load_outcome(payload[at : at + size])))
            at += size

    def fail_pending(self, exc: LabError) -> None:
        """End every call that waits, and every later one, with an error."""
        self._calls._broken = exc
        for n in list(self._calls.pending):
            if (call := self._calls.end(n)) is not None:  # two threads may do this at once
                self._settle(*call, (False, exc))

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return SentAnswers, (self._calls,)


def _load_outcome(pickled: memoryview) -> tuple[bool, Any]:
    try:
        success, value = _loads(pickled)
    except BaseException as exc:  # noqa: BLE001 - whatever unpickling raises, SystemExit too, belongs to this one call
        return (False, exc)
    return success, value


class TakenCalls:
    """The queue of tasks, on the side of a worker: ``get`` for the stdlib's worker loop."""

    def __init__(self, name: str, workers: int) -> None:
        run = runs.current()
        assert run is not None
        self._run, self._workers = run, workers
        keys = [f"{name}:{part}" for part in ("calls", f"taken:{run.me}", "results", "seen", "parked")]
        self._calls, self._taken, self._results, self._seen, self._parked = self._keys = keys
        self._batch: deque[bytes] = deque()
        self._unsent: list[Any] = []
        self._unsent_bytes = self._finished = 0
        self._running = False
        self._seconds = 0.0  # moving average of what a task takes
        self._begun = self._exchanged = time.perf_counter()
        self._number = 0
        self._pickler = _Pickler()
        self._changed = threading.Condition()
        self._guard: threading.Thread | None = None
        self._finalizer: util.Finalize | None = None

    def get(self) -> Any:
        """The next task, or None to end."""
        if self._finalizer is None:  # not before: the bootstrap of a process clears what was registered earlier
            self._finalizer = util.Finalize(self, self._leave, exitpriority=10)
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
        (self._number,) = _NUMBER.unpack_from(payload)
        try:
            return _loads(check_out(self._run, payload[8:], keep=True))
        except (BrokerUnreachable, LeaseLost):
            raise  # no matter of this call's
        except Exception as exc:  # noqa: BLE001 - a task that cannot be loaded costs its own caller an error, nobody else
            exc.add_note(f"while loading a call on host {self._run.settings.host or 'unknown'}")
            self.answer((False, exc))
            return _REFUSED

    def answer(self, outcome: tuple[bool, Any]) -> None:
        """The outcome of the running task; raises what pickling it raises, and then the task still runs."""
        pickled = self._pickler.dumps(outcome)
        elapsed = time.perf_counter() - self._begun
        self._seconds = elapsed if not self._seconds else 0.8 * self._seconds + 0.2 * elapsed
        self._finish(_RESULT.pack(self._number, len(pickled)), pickled)

    def _finish(self, *result: Any) -> None:
        with self._changed:
            self._running = False
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
        replies = self._run.store.wait(lambda left: (*move, left), None, before, [take], recover)
        assert replies is not None
        blob, (fresh, *more) = replies
        with self._changed:
            self._exchanged = time.perf_counter()
            self._batch.extend([blob, *more] if fresh else more)
            if len(self._batch) > 1:
                self._watch()

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
        return self._run.seal(self._results, *check_in(self._run, *self._unsent)) if self._unsent else b""

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
                    self._give_back()

    def _holding(self) -> bool:
        return bool(self._batch or self._unsent)

    def _exchanged_since(self, then: float) -> bool:
        return self._exchanged != then

    def _give_back(self) -> None:
        self._batch.clear()
        self._run.post(GIVE_BACK, self._keys, self._finished, self._sealed(), int(self._running))
        self._sent()

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
        self._calls.answer(answer[2])
