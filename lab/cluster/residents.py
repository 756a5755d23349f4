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
from multiprocessing import reduction
from multiprocessing.managers import RemoteError
from traceback import format_exc
from typing import Any

from lab.cluster import objects
from lab.cluster import run as runs
from lab.cluster.run import Run
from lab.cluster.script import PUSH, Script
from lab.errors import BrokerUnreachable, LabError, ObjectGone, WrongKey

CALL = Script(
    """
if not alive(ARGV[3]) then return 0 end
push(KEYS[3], ARGV[4])
return 1
""",
    fenced=True,
)

ALIVE = Script("return alive(ARGV[3]) and 1 or 0", numbered=False)

_questions = itertools.count()
_kept: dict[str, Resident] = {}
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
            Whatever the method raises.
        """
        run, answer = self.run, self.run.key("answer", f"{self.run.me}-{next(_questions)}")
        owner = self.key.removeprefix(run.key("object", "")).rpartition("-")[0]
        calls = run.key("calls", owner)
        question = run.seal(calls, objects.pack((answer, proxy, method, args, kwds))[0])
        alive = run.eval(CALL, [calls], owner, question)
        while alive:
            if taken := run.take(answer, objects.CHECK):
                ok, result = objects.loads(run.unseal(answer, taken[0]))
                if ok:
                    return result
                try:
                    raise result
                finally:
                    del result  # or the error and this frame would keep each other
            alive = run.eval(ALIVE, [], owner)
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
            taken = run.take(calls, objects.CHECK)
        except BrokerUnreachable:
            return  # who asks hears it from Redis, too
        for call in taken:
            threading.Thread(target=_answer, args=(run, calls, call), daemon=True).start()


def _answer(run: Run, calls: str, blob: bytes) -> None:
    try:
        answer, proxy, method, args, kwds = objects.loads(run.unseal(calls, blob))
    except WrongKey as exc:
        print(f"crosshost: {exc}", file=sys.stderr)
        return
    try:
        outcome = True, proxy._callmethod(method, args, kwds)
    except Exception as exc:  # noqa: BLE001 - it is the caller's
        outcome = False, exc
    try:
        pickled = reduction.ForkingPickler.dumps(outcome)
    except Exception:  # noqa: BLE001 - whatever pickling runs
        pickled = reduction.ForkingPickler.dumps((False, RemoteError(f"Unserializable message: {format_exc()}\n")))
    try:
        run.eval(PUSH, [answer], run.seal(answer, pickled))
    except LabError as exc:
        print(f"crosshost: {exc}", file=sys.stderr)
