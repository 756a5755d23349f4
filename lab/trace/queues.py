"""Queues and pipes, traced: what goes in carries a number, which who gets it takes off, so that an arrow has two ends.

The number travels in a tuple around the item, so nothing changes on the wire of a program that is not traced.
"""

from __future__ import annotations

from typing import Any

from lab.trace.clock import now
from lab.trace.recorder import RECORDER
from lab.trace.wrapper import Traced, note

MARK = "crosshost traced"
_PREFIX = MARK.encode()
_SIZE = len(_PREFIX) + 8


def _opened(found: Any) -> tuple[dict[str, Any] | None, Any]:
    """The number, if there is one, and what it was put around."""
    if type(found) is tuple and len(found) == 3 and found[0] == MARK:
        return {"item": found[1]}, found[2]
    return None, found


class TracedQueue(Traced):
    """Around a Queue, JoinableQueue or SimpleQueue."""

    _bounded: bool = False

    def put(self, obj: Any, *args: Any, **kwds: Any) -> None:
        """Append an item, with its number; the wait for room is noted of a queue that has a bound."""
        number = RECORDER.number()
        if self._bounded:
            self._wait(self._inner.put, (MARK, number, obj), *args, **kwds)
            note(now(), "put", self._name, 0, {"item": number})
        else:
            begun = now()
            # in a call of its own: what the item's number is for must not be in the way of a signature
            self._inner.put((MARK, number, obj), *args, **kwds)
            note(begun, "put", self._name, now() - begun, {"item": number})

    def put_nowait(self, obj: Any) -> None:
        """Append an item or raise at once."""
        self.put(obj, False)

    def get(self, *args: Any, **kwds: Any) -> Any:
        """Take the oldest item."""
        more, obj = _opened(self._wait(self._inner.get, *args, **kwds))
        note(now(), "taken", self._name, 0, more)
        return obj

    def get_nowait(self) -> Any:
        """Take an item or raise at once."""
        return self.get(False)

    def join(self) -> None:
        """Wait until every task is done."""
        self._wait(self._inner.join)
        note(now(), "woken", self._name)

    def task_done(self) -> None:
        """Report one task done."""
        self._do("set", self._inner.task_done)


class TracedConnection(Traced):
    """Around one end of a pipe."""

    def send(self, obj: Any) -> None:
        """Send an object, with its number."""
        number = RECORDER.number()
        self._do("sent", self._inner.send, (MARK, number, obj), more={"item": number})

    def recv(self) -> Any:
        """Receive the next object."""
        more, obj = _opened(self._wait(self._inner.recv))
        note(now(), "received", self._name, 0, more)
        return obj

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes, with their number before them."""
        view = memoryview(buf).cast("B")
        number = RECORDER.number()
        # what the stdlib says of a wrong offset or size, it says of the same numbers
        if offset < 0 or offset > len(view) or (size is not None and (size < 0 or offset + size > len(view))):
            self._inner.send_bytes(buf, offset, size)
        data = view[offset:] if size is None else view[offset : offset + size]
        self._do("sent", self._inner.send_bytes, _PREFIX + number.to_bytes(8, "big") + data, more={"item": number})

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive the bytes of a message."""
        limit = (maxlength,) if maxlength is None or maxlength < 0 else (maxlength + _SIZE,)
        data = self._wait(self._inner.recv_bytes, *limit)
        more = None
        if data.startswith(_PREFIX):
            more, data = {"item": int.from_bytes(data[len(_PREFIX) : _SIZE], "big")}, data[_SIZE:]
        note(now(), "received", self._name, 0, more)
        return bytes(data)

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive the bytes of a message into a buffer."""
        from multiprocessing import BufferTooShort

        with memoryview(buf).cast("B") as view:
            if offset < 0 or offset > len(view):
                raise ValueError("negative offset" if offset < 0 else "offset too large")
            data = self.recv_bytes()
            if len(view) - offset < len(data):
                raise BufferTooShort(data)
            view[offset : offset + len(data)] = data
        return len(data)

    def poll(self, timeout: float | None = 0.0) -> Any:
        """Whether there is something to receive; a wait is noted, a look is not."""
        if timeout is not None and timeout <= 0:
            return self._inner.poll(timeout)
        ready = self._wait(self._inner.poll, timeout)
        note(now(), "woken" if ready else "gave up", self._name)
        return ready

    def fileno(self) -> int:
        """Its descriptor; here, not delegated, as a selector asks the class."""
        return int(self._inner.fileno())

    def __enter__(self) -> TracedConnection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inner.close()
