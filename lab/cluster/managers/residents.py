"""Managed objects that neither pickle nor live in Redis: a pool, a generator, an object with a thread or a socket in it.

Such an object stays in the process that made it. There a call is a call. A proxy that was sent to another process asks the
one that has the object, as every proxy of multiprocessing asks the manager's process, and a thread there answers each
request in a thread of its own, since a method may wait. When the process that has it ends, the object is gone: this is the
one kind of managed object that something on one host can lose.

On Redis: list ``calls:PROCESS``, what others ask of a process; list ``answer:ID``, one for each question.
"""

from __future__ import annotations

import itertools
import sys
import threading
from multiprocessing.managers import RemoteError
from traceback import format_exc
from typing import Any

from lab import byvalue
from lab.cluster.failure import Failure, unloadable
from lab.cluster.managers import objects
from lab.errors import KeyLost, LabError, ObjectGone, WrongKey
from lab.store import run as runs
from lab.store.run import Run
from lab.store.script import PUSH, Script

CALL = Script(
    """
if not alive(ARGV[3]) then return 0 end
push(KEYS[3], ARGV[4])
return 1
""",
    fenced=True,
)

STILL = b""
"""In place of a call: whether that is still worked on. Excluded: waiting for ever for one that somebody has deleted."""

_questions = itertools.count()
_kept: dict[str, Resident] = {}
_under_way: set[str] = set()
_serving: Run | None = None
_lock = threading.Lock()


class Resident(objects.Shared):
    """An object that stays in the process that made it; ``obj`` is None in all others."""

    kind = "resident"

    def call(self, method: str, args: Any, kwds: Any, copy: bool = True) -> Any:
        """Call the object's method, in the process that has it: as it is, without copies."""
        if method == objects.GETVALUE:
            return objects.copied(self.obj)
        return objects.method_of(self.obj, method)(*args, **kwds)

    def travels(self) -> None:
        """Keep the object, and answer for it, from now until the manager is shut down or this process ends."""
        super().travels()
        if self.obj is not None:
            _kept[self.key] = self
            _serve(self.run)

    def ask(self, proxy: Any, method: str, args: Any, kwds: Any) -> Any:
        """Have the process that has the object call its method.

        Raises:
            ObjectGone: That process has ended.
            RemoteError: The result does not pickle.
            ForeignError: The result, or what the method raised, cannot be loaded here.
        Whatever the method raises.
        """
        run, answer = self.run, self.run.key("answer", f"{self.run.me}-{next(_questions)}")
        owner = self.key.removeprefix(run.key("object", "")).rpartition("-")[0]
        calls = run.key("calls", owner)
        call = objects.pack((proxy, method, args, kwds))[
            0
        ]  # apart, so that it is known whom to tell if it does not load
        question = run.seal(calls, objects.pack((answer, call))[0])
        alive, still = run.eval(CALL, [calls], owner, question), objects.pack((answer, STILL))[0]
        while alive:
            if taken := run.take(answer, objects.CHECK):
                ok, result = _outcome(run.unseal(answer, taken[0]))
                if ok:
                    return result
                try:
                    raise result
                finally:
                    del result  # or the error and this frame would keep each other
            alive = run.eval(CALL, [calls], owner, run.seal(calls, still))
        raise ObjectGone(
            f"The managed object {self.key} is gone: the process that had it has ended.",
            "It does not pickle, so it stays in the process that made it. Make it in one that lives as long as its users.",
        )


objects.KINDS[Resident.kind] = Resident


def forget(keys: set[str]) -> None:
    """Let go of objects whose manager was shut down."""
    for key in keys & _kept.keys():
        del _kept[key]


def _serve(run: Run) -> None:
    global _serving
    with _lock:
        if _serving is not run:
            _serving = run
            threading.Thread(target=_answer_all, args=(run,), name="crosshost-residents", daemon=True).start()


def _answer_all(run: Run) -> None:
    calls = run.key("calls", run.me)
    while runs.current() is run:
        try:
            try:
                for blob in run.take(calls, objects.CHECK):
                    _take(run, calls, blob)
            except KeyLost as exc:
                run.put_right(exc)
        except LabError:
            return  # who asks hears it from Redis, too


def _take(run: Run, calls: str, blob: bytes) -> None:
    try:
        answer, call = objects.loads(run.unseal_once(calls, blob))
    except WrongKey as exc:
        print(f"crosshost: {exc}", file=sys.stderr)
        return
    if call != STILL:
        _under_way.add(answer)
        threading.Thread(target=_answer, args=(run, answer, call), daemon=True).start()
    elif answer not in _under_way:  # it has an answer, which is read before this one, or it never came
        _send(run, answer, (False, Failure.of(KeyLost.gone(calls, "a call of a managed object, or its answer"))))


def _outcome(pickled: memoryview) -> tuple[bool, Any]:
    try:
        ok, result = objects.loads(pickled)
    except BaseException as exc:  # noqa: BLE001 - whatever unpickling runs
        return False, unloadable(exc)
    return ok, result


def _answer(run: Run, answer: str, call: bytes) -> None:
    try:
        proxy, method, args, kwds = objects.loads(call)
        outcome = True, proxy._callmethod(method, args, kwds)
    except BaseException as exc:  # noqa: BLE001 - it is the caller's
        outcome = False, Failure.of(exc)
    try:
        _send(run, answer, outcome)
    finally:
        _under_way.discard(answer)  # after the answer is there: see STILL


def _send(run: Run, answer: str, outcome: tuple[bool, Any]) -> None:
    try:
        pickled = byvalue.dumps(outcome)
    except BaseException:  # noqa: BLE001 - whatever pickling runs
        pickled = byvalue.dumps((False, RemoteError(f"Unserializable message: {format_exc()}\n")))
    try:
        run.eval(PUSH, [answer], run.seal(answer, pickled))
    except LabError as exc:
        print(f"crosshost: {exc}", file=sys.stderr)
