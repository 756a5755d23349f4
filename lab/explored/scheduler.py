"""The scheduler: runs a program once, one worker at a time, and asks a strategy whose operation is next.

A worker is a thread that stops before each operation (``Scheduler.perform``). Nothing runs concurrently: the worker that
stops chooses the next one, lets it go, and waits until somebody chooses it. So there is no lock here, and need be none.
"""

from __future__ import annotations

import io
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TextIO

from lab.errors import LabError
from lab.explored import clock
from lab.explored.naming import SKIPPED, Names, calling_line, own_line
from lab.explored.operation import Operation, Place, Step
from lab.explored.pace import Pace, raise_in

ROUNDS = 5
"""How often the same steps must lead back to the same state before that counts as no progress."""
SEEN = 3
"""How often a worker may come back to the same state before others must go first."""
PATIENCE = 60.0
"""Real seconds that who ends another worker waits for its thread."""
UNWINDING = 10.0
"""Real seconds that a worker whose run is over has for its ``finally``."""


class Abandoned(BaseException):
    """Ends a worker of a run that is over, or that was terminated; no ``except Exception`` holds it up."""


class CannotExplore(LabError, RuntimeError):
    """The program does what an explorer cannot order."""


class Strategy(Protocol):
    """Whose operation is next."""

    def choose(self, ready: list[Worker], scheduler: Scheduler) -> Worker | None:
        """One of the workers that can go on; None to give the run up."""


@dataclass(eq=False)
class Worker:
    """A process of the program, as a thread.

    Attributes:
        key: Its name by descent: ``main``, ``Process-1``, ``Process-1:1``. The same in every run.
        path: Its descent as numbers, the order of the workers.
        pending: What it is about to do; None while it runs, and when it has ended.
        clock: Its virtual time.
        printed: What it wrote to stdout.
        error: What ended it, if it was an exception.
        left: The exit code that it gave ``os._exit``; None if it did not call that.
        at_end: Called when it has ended, however.
    """

    key: str
    path: tuple[int, ...]
    body: Callable[[], int] | None = None
    daemon: bool = False
    clock: float = 0.0
    pending: Operation | None = None
    ended: bool = False
    killed: bool = False
    code: int | None = None
    left: int | None = None
    printed: io.StringIO = field(default_factory=io.StringIO)
    error: BaseException | None = None
    error_at: Place | None = None
    children: int = 0
    made: int = 0
    thread: threading.Thread | None = None
    at_end: list[Callable[[], None]] = field(default_factory=list)
    process: Any = None

    def __post_init__(self) -> None:
        self.gate = threading.Semaphore(0)


_here = threading.local()
_active: Scheduler | None = None


def active() -> Scheduler:
    """The scheduler of the run that goes on.

    Raises:
        CannotExplore: There is none.
    """
    if _active is None:
        raise CannotExplore(
            "The explored place runs programs only while they are explored.",
            "Type: producer explore SCRIPT.py, or call lab.explored.search.explore(program).",
        )
    return _active


def current() -> Worker:
    """The worker that calls.

    Raises:
        CannotExplore: It is a thread that the explorer has not started.
    """
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is None:
        active()
        raise CannotExplore(
            f"The thread {threading.current_thread().name!r} is not one of the explored processes.",
            "The explored place orders the processes of multiprocessing, and no threads of the program's own.",
        )
    return worker


def worker_or_none() -> Worker | None:
    """The worker that calls; None if it is no worker, or its run is over."""
    return getattr(_here, "worker", None) if _active is not None else None


class Scheduler:
    """One run of a program.

    Args:
        strategy: Chooses.
        max_steps: After so many choices the run is given up.
        detailed: Whether steps keep what is needed to draw them.
        ends_matter: Whether the end of a worker is a choice of its own, since the program asks whether one is alive.

    Attributes:
        trace: The steps that were done.
        verdict: How it went: ``ended``, ``deadlock``, ``no progress``, ``too long``, ``endless``,
            ``given up``.
        saw_ends: Whether the program has asked whether a worker is alive.
        stuck: What each worker was about to do when the run ended: at a deadlock, what it waits for.
        cut_off: What terminated workers were about to do.
        round_lines: The lines of the steps that are repeated for ever.
        endless: Who computes for ever, and where.
        unforced: What the program uses whose turns cannot be forced on a place; empty if all can.
    """

    def __init__(
        self, strategy: Strategy, max_steps: int = 2000, detailed: bool = False, ends_matter: bool = False
    ) -> None:
        self.strategy, self.max_steps, self.detailed, self.ends_matter = strategy, max_steps, detailed, ends_matter
        self.workers: dict[str, Worker] = {}
        self.objects: dict[str, Any] = {}
        self.names = Names()
        self.trace: list[Step] = []
        self.choices = self.preemptions = 0
        self.verdict = ""
        self.saw_ends = False
        self.value: Any = None
        self.stuck: dict[str, Operation] = {}
        self.cut_off: dict[str, Operation] = {}
        self.round_lines: set[int] = set()
        self.endless = self.unforced = ""
        self.failure: BaseException | None = None
        self._live: list[Worker] = []
        self._chosen: Worker | None = None
        self._visits: dict[Any, int] = {}
        self._seen: dict[Any, list[int]] = {}
        self._knew: dict[Any, list[int]] = {}
        self._cycle: list[str] = []
        self._round: tuple[Any, int] = (None, 0)
        self._tired: set[str] = set()
        self._path: list[str] = []

    # The life of a run

    def run(self, program: Callable[[], Any]) -> None:
        """Run the program to its end, or to where it cannot or shall not go on.

        Raises:
            CannotExplore: It does what cannot be ordered.
        """
        global _active
        if _active is not None:
            raise CannotExplore("A program that is explored cannot explore.")
        main = self.workers["main"] = Worker("main", ())
        main.thread = threading.current_thread()
        self._live.append(main)
        _active, _here.worker = self, main
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Streams(streams[0]), _Streams(streams[1], kept=False)
        try:
            with clock.virtual(worker_or_none, self._sleep, self._signal, self._leave), _quiet_threads():
                with suppress(Abandoned), Pace(self._got_to, self._give_up):
                    self._run_main(main, program)
                raise_in(main.thread, None)
                self._unwind()
        finally:
            sys.stdout, sys.stderr = streams
            _active, _here.worker = None, None
        if self.failure is not None:
            raise self.failure

    def _run_main(self, main: Worker, program: Callable[[], Any]) -> None:
        try:
            main.code = _outcome(main, lambda: self._keep(program()))
            if not self.verdict:
                self.perform(
                    Operation("exit", lambda: None, ready=self._nobody_left, local=True, waits_for=self._who_is_left)
                )
                self._stop("ended")
        except Abandoned:
            pass
        except CannotExplore as exc:
            self._fail(exc)
        if main.left is not None:
            main.code, main.error = main.left, None

    def _keep(self, value: Any) -> int:
        self.value = value
        return 0

    def _nobody_left(self) -> bool:
        return all(worker.ended for worker in self._live if worker.key != "main" and not worker.daemon)

    def _who_is_left(self) -> str:
        return ", ".join(worker.key for worker in self._live if worker.key != "main" and not worker.daemon)

    def _stop(self, verdict: str) -> None:
        """End the run here."""
        if not self.verdict:
            self.verdict = verdict
            self.stuck = {worker.key: worker.pending for worker in self._live if worker.pending is not None}

    def _fail(self, exc: BaseException) -> None:
        self._stop("given up")
        self.failure = self.failure or exc

    def _runs(self) -> Worker | None:
        """Who is neither about to do something nor ended."""
        return next((worker for worker in list(self._live) if worker.pending is None), None)

    def _got_to(self) -> Any:
        return len(self.trace), self._runs()

    def _give_up(self, seconds: float) -> None:
        """End the run whose worker computes for ever. Called from outside."""
        worker = self._runs()
        frame = sys._current_frames().get(worker.thread.ident or 0) if worker and worker.thread else None
        if worker is None or frame is None:
            return
        if not self.verdict:
            line = own_line(frame)[1]
            self.endless = f"{worker.key} has computed for {seconds:.0f} s without an operation at line {line}"
            self._stop("endless")
        raise_in(worker.thread, Abandoned)
        if worker.key != "main":
            self.workers["main"].gate.release()

    def _unwind(self) -> None:
        """End the threads that are left, one at a time: what they do in ``finally`` must not run side by side either."""
        for worker in list(self._live):
            thread = worker.thread
            if worker.key == "main" or thread is None or not thread.ident:
                continue
            worker.gate.release()
            thread.join(UNWINDING)
            if thread.is_alive():
                self._fail(
                    CannotExplore(f"{self.endless}, and does not end.")
                    if self.endless
                    else CannotExplore(
                        f"{worker.key} does not end when its run is over.", "Does it catch every exception, in a loop?"
                    )
                )
                return

    # What primitives and processes call

    def add(self, shared: Any, kind: str, label: str = "") -> tuple[str, str]:
        """Take note of a new shared object; its key, the same in every run, and its name for people."""
        worker = current()
        worker.made += 1
        key = f"{worker.key}/{worker.made}"
        self.objects[key] = shared
        return key, label or self.names.of(kind, calling_line())

    def spawn(self, body: Callable[[], int], daemon: bool) -> Worker:
        """A new worker, child of the one that calls; it does not run yet."""
        parent = current()
        parent.children += 1
        path = (*parent.path, parent.children)
        return Worker("Process-" + ":".join(map(str, path)), path, body, daemon)

    def launch(self, worker: Worker) -> None:
        """Let a new worker begin."""
        if len(self.workers) > 64:
            raise CannotExplore("The program starts more than 64 processes.", "Explore it with fewer, or less work.")

        def act() -> None:
            worker.clock = current().clock
            worker.pending = Operation("begin", lambda: None, local=True)
            worker.thread = threading.Thread(target=self._body, args=(worker,), name=worker.key, daemon=True)
            self.workers[worker.key] = worker
            self._live.append(worker)
            self._live.sort(key=lambda one: one.path)

        self.perform(Operation("start", act, local=True), child=worker.key)

    def perform(self, op: Operation, child: str = "") -> Any:
        """Do an operation when the strategy says so; what it returns."""
        me = current()
        if self.verdict or me.killed or me.ended or me.left is not None:
            raise Abandoned
        op.where = calling_line()
        me.pending = op
        if not (op.local and op.is_ready()):
            self._hand_over(me)
        return self._done(me, op, child)

    def _sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        # A sleep orders nothing: whoever wakes may be the first or the last to go on. So it is no choice either.
        self.perform(Operation("sleep", lambda: None, timeout=seconds, local=True))

    def _signal(self, pid: int, number: int) -> None:
        for worker in self.workers.values():
            if worker.process is not None and clock.pid_of(worker.path) == pid and not worker.ended:
                worker.process._end(number)
                return
        raise ProcessLookupError(3, "No such process")

    def _leave(self, code: int) -> NoReturn:
        """``os._exit``: end the worker that calls where it stands. The main one ends the run, and what others still do."""
        me = current()
        self.unforced = self.unforced or "os._exit"
        if me.key == "main":
            everything = tuple(one.touch(True) for one in self.objects.values())
            self.perform(Operation("exit", lambda: None, everything))
            me.left = code & 0xFF
            self._stop("ended")
        elif self.ends_matter:
            self.perform(Operation("end", lambda: None, (me.process._life.touch(True),)))
        me.left = code & 0xFF
        raise Abandoned

    # Choosing

    def _hand_over(self, me: Worker) -> None:
        chosen = self._next_or_stop()
        if chosen is not me and not (chosen is None and me.key == "main"):
            self._let_go(chosen)
            self._park(me)
        if self.verdict or me.killed:
            raise Abandoned

    def _let_go(self, worker: Worker | None) -> None:
        if worker is None:  # the run is over: the main worker, which unwinds the others, must know
            worker = self.workers["main"]
            if worker is getattr(_here, "worker", None):
                return
        thread = worker.thread
        if thread is not None and not thread.ident:
            thread.start()
        else:
            worker.gate.release()

    def _park(self, me: Worker) -> None:
        me.gate.acquire()

    def _next_or_stop(self) -> Worker | None:
        try:
            chosen = self._next()
        except LabError as exc:
            self._fail(exc)
            return None
        self._chosen = chosen
        return chosen

    def _next(self) -> Worker | None:
        if self.verdict:
            return None
        waiting = [worker for worker in self._live if worker.pending is not None]
        ready = []
        for worker in waiting:
            op = worker.pending
            assert op is not None
            if op.is_ready():
                if op.local:
                    return worker
                ready.append(worker)
        if not ready:
            expired = self._expired(waiting)
            if expired is None:
                self._stop("deadlock")
            return expired
        if self.choices >= self.max_steps:
            self._stop("too long")
            return None
        forced = self._fair(ready)
        if self.verdict:
            return None
        open_to = [forced] if forced else [worker for worker in ready if worker.key not in self._tired] or ready
        chosen = self.strategy.choose(open_to, self)
        if chosen is None:
            self._stop("given up")
            return None
        last = self._path[-1] if self._path else ""
        self.preemptions += chosen.key != last and any(worker.key == last for worker in ready)
        self._path.append(chosen.key)
        if chosen.key not in self._tired:
            self._tired.clear()
        return chosen

    def _expired(self, waiting: list[Worker]) -> Worker | None:
        """Nobody can go on, so time passes: who has the earliest deadline gives up waiting."""
        timed = [worker for worker in waiting if worker.pending and worker.pending.timeout is not None]
        if not timed:
            return None
        return min(timed, key=lambda worker: (worker.clock + (worker.pending.timeout or 0), worker.path))  # type: ignore[union-attr]

    # Progress

    def _fair(self, ready: list[Worker]) -> Worker | None:
        """Notice that what is shared comes back to the same state again and again.

        If only some of those who could go on have taken part, that is unfair, and the others must go first. If all have, and
        nothing has changed in what the workers know either, the same steps are repeated ``ROUNDS`` times; when they still
        lead back to where they began, nothing will ever change.
        """
        if self._cycle:
            return self._repeat(ready)
        last = self._chosen
        if last is None or last.pending is None:
            return None
        visit = (last.key, last.pending.kind, last.pending.where)
        self._visits[visit] = self._visits.get(visit, 0) + 1
        if self._visits[visit] <= SEEN:
            return None
        times = self._seen.setdefault(self._state(), [])
        times.append(len(self._path))
        if len(times) <= SEEN:
            return None
        # Where every step leads back to the same state, the last round of all is longer than the way back to it.
        if self._round_of_all(ready, times[-1 - (SEEN + 1) * len(ready) : -1]) is None:
            self._tired = set(self._path[times[-2] :])
            return None
        known = self._known()
        before = self._round_of_all(ready, self._knew.setdefault(known, []))
        self._knew[known].append(len(self._path))
        if before is None:
            return None
        self._cycle, self._round = self._path[before:], (known, 0)
        return self._repeat(ready)

    def _round_of_all(self, ready: list[Worker], times: list[int]) -> int | None:
        """The last of these times since which all who could go on have had a turn; None if there is none."""
        return next((at for at in reversed(times) if {worker.key for worker in ready} <= set(self._path[at:])), None)

    def _repeat(self, ready: list[Worker]) -> Worker | None:
        known, done = self._round
        at = done % len(self._cycle)
        chosen = next((worker for worker in ready if worker.key == self._cycle[at]), None)
        if chosen is None or (at == 0 and self._known() != known):
            self._cycle = []
            return None
        if done == ROUNDS * len(self._cycle):
            first = self.choices - len(self._cycle)
            self.round_lines = {
                step.where[1] for step in self.trace if step.choice is not None and step.choice >= first
            }
            self._stop("no progress")
            return None
        self._round = known, done + 1
        return chosen

    def _state(self) -> Any:
        shared = tuple(one.state() for one in self.objects.values())
        doing = tuple((w.key, w.pending.kind, w.pending.where) for w in self._live if w.pending is not None)
        return shared, doing

    def _known(self) -> Any:
        """The state with what the workers know: their plain local variables, a loop's counter above all."""
        frames = sys._current_frames()
        known = []
        for worker in self._live:
            frame = frames.get(worker.thread.ident or 0) if worker.thread else None
            while frame is not None:
                if not frame.f_code.co_filename.startswith(SKIPPED):
                    plain = {n: v for n, v in frame.f_locals.items() if isinstance(v, (int, str, float, bytes))}
                    known.append((worker.key, frame.f_lasti, repr(plain)))
                if frame.f_code.co_name == "<module>":
                    break
                frame = frame.f_back
        return self._state(), tuple(known)

    # Doing

    def _done(self, me: Worker, op: Operation, child: str = "") -> Any:
        expired = not op.is_ready()
        step = Step(me.key, op.kind, op.touches, op.where, expired=expired, victim=op.victim, child=child)
        if op.touches and op.kind != "exit":
            step.label = self.objects[op.touches[0].key].label_of(op.touches[0].part)
        if not op.local and not expired:
            step.choice = self.choices
            self.choices += 1
        self.trace.append(step)
        me.pending = None
        self._pass_time(me, op, expired)
        if expired:
            return op.expire() if op.expire else False
        try:
            result = op.act()
        except Exception as exc:
            step.raised, step.note = type(exc).__name__, f"raises {type(exc).__name__}"
            raise
        if isinstance(result, (bool, int, float)):
            step.result = result
        step.item = getattr(result, "plain", None)
        if self.detailed:
            with suppress(Exception):  # what is only shown, such as a message's value, must not disturb the program
                step.note = op.note(result) if op.note else ""
                touched = [self.objects[touch.key] for touch in op.touches]
                step.state = {one.label: one.show() for one in touched}
        return result

    def _pass_time(self, me: Worker, op: Operation, expired: bool) -> None:
        """A worker's time is its own, and goes on to that of whoever did something to the same object before it.

        So it depends on what was done to what in which order, and not on what happened elsewhere meanwhile.
        """
        if expired or op.kind == "sleep":
            me.clock += op.timeout or 0.0
        for touch in op.touches:
            shared = self.objects[touch.key]
            me.clock = max(me.clock, shared.clock)
            if touch.writes:
                shared.clock = me.clock
        me.clock += 1e-6

    # Workers

    def _body(self, worker: Worker) -> None:
        _here.worker = worker
        try:
            if self.verdict or worker.killed:
                return
            worker.pending = None
            assert worker.body is not None
            worker.code = _outcome(worker, worker.body)
            if self.ends_matter and not worker.killed:
                self.perform(Operation("end", lambda: None, (worker.process._life.touch(True),)))
        except Abandoned:
            pass
        except CannotExplore as exc:
            self._fail(exc)
        finally:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        if worker.killed or self.verdict:  # whoever killed it has gone on already, or nobody goes on
            return
        if worker.left is not None:
            worker.code, worker.error = worker.left, None
        worker.ended, worker.pending = True, None
        self._live.remove(worker)
        for call in worker.at_end:
            call()
        self._let_go(self._next_or_stop())

    def kill(self, worker: Worker, code: int) -> None:
        """End another worker where it stands: it does nothing more. Called within an operation."""
        if worker.ended:
            return
        if worker is current():
            raise SystemExit(code)
        if worker.pending is not None:
            self.cut_off[worker.key] = worker.pending
        worker.killed = worker.ended = True
        worker.code, worker.pending = code, None
        self._live.remove(worker)
        for call in worker.at_end:
            call()
        if worker.thread is not None and worker.thread.ident:
            worker.gate.release()
            worker.thread.join(PATIENCE)

    @property
    def cycle(self) -> int:
        """How many steps are repeated for ever."""
        return len(self._cycle)

    @property
    def now(self) -> float:
        """The virtual time of the worker that calls."""
        return current().clock


def _outcome(worker: Worker, body: Callable[[], int]) -> int:
    """Run a worker's code; its exit code, as ``BaseProcess._bootstrap`` has it."""
    try:
        return body()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        return 1
    except (Abandoned, CannotExplore):
        raise
    except Exception as exc:  # noqa: BLE001 - it is the program's, and a result
        worker.error = exc
        own = [frame for frame in traceback.extract_tb(exc.__traceback__) if not frame.filename.startswith(SKIPPED)]
        worker.error_at = (own[-1].filename, own[-1].lineno or 0) if own else None
        return 1


class _Streams(io.TextIOBase):
    """What workers write, each to its own; what others write goes where it went before."""

    def __init__(self, real: TextIO, kept: bool = True) -> None:
        self._real, self._kept = real, kept

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream before it."""
        return self._real.encoding

    def write(self, text: str) -> int:
        """Write."""
        worker = worker_or_none()
        if worker is None:
            return self._real.write(text)
        if self._kept and not (worker.killed or worker.left is not None or active().verdict):
            worker.printed.write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        """The descriptor of the stream before it."""
        return self._real.fileno()

    def isatty(self) -> bool:
        """It is no terminal."""
        return False


class _quiet_threads:
    """While a run unwinds, what its threads die of is nobody's concern."""

    def __enter__(self) -> None:
        self._hook = threading.excepthook
        threading.excepthook = self._quiet

    def __exit__(self, *exc_info: object) -> None:
        threading.excepthook = self._hook

    def _quiet(self, args: Any) -> None:
        if not issubclass(args.exc_type, Abandoned):
            self._hook(args)
