"""Pipe: two ends, each closed when every process that has it has closed it, or has ended.

Differs from multiprocessing: a pipe takes any number of messages, so ``send`` never waits; an end has no descriptor.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable
from typing import Any

from lab.explored.operation import Operation
from lab.explored.scheduler import CannotExplore, Worker, active, current
from lab.explored.shared import Handle, Packed, Shared


class _Stream(Shared):
    """What goes in one direction: messages, how many hold the end that sends, how many the end that receives."""

    kind = "Pipe"

    def __init__(self) -> None:
        super().__init__()
        self.messages, self.senders, self.receivers = deque[Packed](), 0, 0

    def state(self) -> Any:
        """The messages and who is left."""
        return tuple(message.state() for message in self.messages), self.senders, self.receivers

    def show(self) -> str:
        """The messages, or how many."""
        if len(self.messages) > 3:
            return f"{len(self.messages)} messages"
        return "[" + ", ".join(message.show() for message in self.messages) + "]"

    def has_news(self) -> bool:
        """Whether ``recv`` would return or raise at once."""
        return bool(self.messages) or self.senders == 0


class Connection(Handle):
    """One end of a pipe."""

    def __init__(self, incoming: _Stream | None, outgoing: _Stream | None) -> None:
        self._incoming, self._outgoing, self._closed = incoming, outgoing, False
        self._count(1)
        current().at_end.append(self._close)

    def _count(self, change: int) -> None:
        if self._incoming is not None:
            self._incoming.receivers += change
        if self._outgoing is not None:
            self._outgoing.senders += change

    def for_child(self) -> Connection:
        """A second handle of this end, which is open until its process closes it or ends."""
        other = copy.copy(self)
        other._closed = False
        other._count(1)
        return other

    def held_by(self, worker: Any) -> None:
        """Close it when a worker ends."""
        worker.at_end.append(self._close)

    @property
    def closed(self) -> bool:
        """Whether this handle is closed."""
        return self._closed

    @property
    def readable(self) -> bool:
        """Whether it receives."""
        return self._incoming is not None

    @property
    def writable(self) -> bool:
        """Whether it sends."""
        return self._outgoing is not None

    def _in(self) -> _Stream:
        if self._closed:
            raise OSError("handle is closed")
        if self._incoming is None:
            raise OSError("connection is write-only")
        return self._incoming

    def _out(self) -> _Stream:
        if self._closed:
            raise OSError("handle is closed")
        if self._outgoing is None:
            raise OSError("connection is read-only")
        return self._outgoing

    def send(self, obj: Any) -> None:
        """Send an object; BrokenPipeError when nobody is left to receive it."""
        out, message = self._out(), Packed(obj)

        def act() -> None:
            if out.receivers == 0:
                raise BrokenPipeError(32, "Broken pipe")
            out.messages.append(message)

        out._do("send", act, note=lambda _: message.show())

    def recv(self) -> Any:
        """Receive the next object; EOFError when the other end is closed and nothing is left."""
        stream = self._in()

        def act() -> Packed:
            if not stream.messages:
                raise EOFError
            return stream.messages.popleft()

        got: Packed = stream._do("recv", act, stream.has_news, note=lambda message: message.show())
        return got.open()

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes."""
        data = bytes(buf)[offset:]
        self.send(data if size is None else data[:size])

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive bytes."""
        data = bytes(self.recv())
        if maxlength is not None and len(data) > maxlength:
            raise OSError("bad message length")
        return data

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether ``recv`` would return at once, or within a time."""
        stream = self._in()
        if timeout == 0.0:
            return bool(stream._do("poll", stream.has_news, writes=False, note=str))
        return bool(stream._do("poll", lambda: True, stream.has_news, writes=False, timeout=timeout))

    def close(self) -> None:
        """Close this handle."""
        if self._closed:
            return
        ends = [stream for stream in (self._outgoing, self._incoming) if stream is not None]
        ends[0]._do("close", self._close, also=tuple(stream.touch(True) for stream in ends[1:]))

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._count(-1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Sentinel:
    """What ``wait`` waits on for the end of a process.

    Args:
        worker: The process's.
        life: What operations touch when they ask whether it has ended.
    """

    def __init__(self, worker: Worker, life: Shared) -> None:
        self._worker, self.life = worker, life

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._worker.ended

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same process: each time that one is asked for, it is the same number elsewhere."""
        return isinstance(other, Sentinel) and self._worker is other._worker

    def __hash__(self) -> int:
        return hash(self._worker.path)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two ends of a pipe."""
    there = _Stream()
    back = _Stream() if duplex else None
    return Connection(there, back), Connection(back, there)


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Those of the connections and sentinels that are ready, waiting at most ``timeout`` seconds for the first one."""
    objects = list(object_list)
    active().unforced = "connection.wait"
    for one in objects:
        if not isinstance(one, (Connection, Sentinel)):
            raise CannotExplore(
                f"connection.wait is given a {type(one).__name__}; only pipes and sentinels are ready in a known order.",
                "Give it ends of a Pipe, and the sentinels of processes.",
            )
    streams = {id(one): one._in() for one in objects if isinstance(one, Connection)}

    def ready() -> list[Any]:
        return [one for one in objects if (one.ended if isinstance(one, Sentinel) else streams[id(one)].has_news())]

    touches = tuple(stream.touch(False) for stream in streams.values())
    if any(isinstance(one, Sentinel) for one in objects):
        active().saw_ends = True
        touches += tuple(one.life.touch(False) for one in objects if isinstance(one, Sentinel))
    op = Operation("wait", ready, touches, None if timeout == 0 else lambda: bool(ready()), timeout, list)
    found: list[Any] = active().perform(op)
    return found
