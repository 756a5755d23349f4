"""Processes, traced: where one starts another, how each ends, and the record that every one of them keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab import local
from lab.trace.clock import now
from lab.trace.recorder import RECORDER, Where, begin_of_thread, end_of_thread, end_when_told
from lab.trace.wrapper import gave_up

note = RECORDER.note

Extend = Callable[[Where], None]


class ChildRun:
    """Stands in a child for its method ``run``: records while that one runs.

    It is found there as an attribute of the process, so that any class of process, a program's own too, is traced as it is.

    Args:
        where: Where the child hands in its record.
        number: Of the start, which is noted at both ends.
        extend: Has what the child makes itself be traced as well.
    """

    def __init__(self, where: Where, number: int, extend: Extend) -> None:
        self.where, self.number, self.extend = where, number, extend

    def __call__(self) -> None:
        """Run the process that this one is."""
        me = local.current_process()
        mine = RECORDER.begin(self.where)  # not if this is a thread of the process that started it
        if mine:
            end_when_told()
            self.extend(self.where)
        begin_of_thread(me.name, item=self.number)
        code = 1
        try:
            type(me).run(me)
            code = 0
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            raise
        finally:
            end_of_thread(code)
            if mine:
                RECORDER.close()


def _new(kind: Any) -> Any:
    return kind.__new__(kind)


_classes: dict[tuple[type, Where], type] = {}


def traced_process(base: type, where: Where, extend: Extend) -> Any:
    """The class of traced processes of a place: its own one, which says what happens to it.

    Args:
        base: The place's class.
        where: Where children hand in what they record.
        extend: Called in each child with that.
    """
    if (base, where) not in _classes:
        _classes[base, where] = _made(base, where, extend)
    return _classes[base, where]


def _made(base: Any, where: Where, extend: Extend) -> type:
    class TracedProcess(base):  # type: ignore[misc]
        """A process that is traced."""

        def __reduce_ex__(self, protocol: Any) -> Any:
            if type(self) is TracedProcess:  # in a child it is one of the place's; what is traced there is its run
                return _new, (base,), vars(self)
            return super().__reduce_ex__(protocol)

        def start(self) -> None:
            begun, number = now(), RECORDER.number()
            self.run, self._number = ChildRun(where, number, extend), number
            note(begun, "starts", self.name, 0, {"item": number})
            try:
                super().start()
            finally:
                del self.run

        def join(self, timeout: float | None = None) -> None:
            note(now(), "waits", self.name)
            try:
                super().join(timeout)
            except BaseException as exc:
                gave_up(self.name, exc)
                raise
            code = self.exitcode
            if code is None:
                note(now(), "gave up", self.name)
                return
            lost = bool(getattr(self._popen, "host_lost", False))
            more = {"item": getattr(self, "_number", None), "code": code} | ({"lost": True} if lost else {})
            note(now(), "joined", self.name, 0, more)

        def terminate(self) -> None:
            super().terminate()
            note(now(), "signalled", self.name)

        def kill(self) -> None:
            super().kill()
            note(now(), "signalled", self.name)

    TracedProcess.__name__, TracedProcess.__qualname__ = base.__name__, base.__qualname__
    return TracedProcess
