"""A delay line between a fleet and its Redis: ``python -m worker.delay --listen 0.0.0.0:6379 --to redis:6379``.

What arrives at one end of a connection leaves at the other half a round trip later, in the same pieces and the same order.
That is a distance, not a bandwidth: what is on the way does not hold up what comes after it, so pipelining gains as much as
it does on a network. It needs no privilege and no kernel module. Who sets the round trip, and how: ``lab.fleet.distance``.

Accuracy: nothing arrives early. On a machine with a core to spare a PING rises by the round trip and 0.1 to 0.2 ms more, as
the line is woken twice for it; where all cores are busy by more. It waits by ``select``, which takes microseconds (epoll,
asyncio's usual choice, rounds every wait up to a whole millisecond), and on Linux without the 50 us by which the kernel
groups wake-ups.
"""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from lab.fleet.distance import COMMAND, LONGEST

WINDOW = 16 << 20
"""Bytes on the way in one direction of a connection; beyond it the sender waits, as with TCP."""

CONNECTIONS = 400
"""Connections at once: ``select`` takes descriptors up to 1023, and each connection has two."""


PR_SET_TIMERSLACK = 29
"""Linux, prctl(2): how many nanoseconds the kernel may be late with a wake-up."""


class Line:
    """All connections of one address, and how far away it is.

    Args:
        connect: Opens a connection to Redis for a protocol.
    """

    def __init__(self, connect: Callable[[Callable[[], asyncio.Protocol]], Any]) -> None:
        self.connect = connect
        self.rtt = 0.0
        self.setter: End | None = None
        self.ends: set[End] = set()


class End(asyncio.Protocol):
    """One end of a connection.

    Args:
        line: What it belongs to.
        other: The end at which leaves what arrives here; none yet for a client that has just come.
    """

    def __init__(self, line: Line, other: End | None = None) -> None:
        self.line, self.other = line, other
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.fresh = other is None
        self.open_at = 0.0
        self.on_the_way: deque[tuple[float, bytes | None]] = deque()
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None
        self.call: asyncio.Task[None] | None = None
        self.blocked = False

    def connection_made(self, transport: Any) -> None:
        """Somebody came, or Redis has answered the call."""
        self.transport = transport
        self.line.ends.add(self)
        if len(self.line.ends) > 2 * CONNECTIONS:
            transport.abort()
        if self.fresh:
            self.open_at = self.loop.time() + self.line.rtt  # to connect takes a round trip as well

    def data_received(self, data: bytes) -> None:
        """Pass on, later."""
        if self.fresh:
            self.fresh = False
            if data.startswith(COMMAND):
                self._set(data)
                return
            self.call = self.loop.create_task(self._call())
        self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass that on too, behind what was sent before."""
        self.line.ends.discard(self)
        if self.line.setter is self:
            self.line.rtt, self.line.setter = 0.0, None
        self._pass_on(None)

    def pause_writing(self) -> None:
        """Whoever is at this end reads too slowly: let the other end wait."""
        self.blocked = True
        if self.other is not None:
            self.other._throttle()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.blocked = False
        if self.other is not None:
            self.other._throttle()

    def _set(self, command: bytes) -> None:
        microseconds = command.removeprefix(COMMAND).strip()
        if self.line.setter is not None:
            self.transport.write(b"-BUSY another command has set %d us\r\n" % round(self.line.rtt * 1e6))
        elif microseconds.isdigit() and int(microseconds) <= LONGEST * 1e6:
            self.line.setter, self.line.rtt = self, int(microseconds) / 1e6
            self.transport.write(b"+OK\r\n")
        else:
            self.transport.write(b"-ERR not a number of microseconds, or too many\r\n")

    async def _call(self) -> None:
        try:
            _, self.other = await self.line.connect(lambda: End(self.line, self))
        except OSError:
            self.transport.abort()  # as Redis itself would be: not there
            return
        self._arrive()

    def _pass_on(self, data: bytes | None) -> None:
        now = self.loop.time()
        due = max(now, self.open_at) + self.line.rtt / 2
        if self.on_the_way:
            due = max(due, self.on_the_way[-1][0])  # nothing overtakes, when the way has become shorter
        self.on_the_way.append((due, data))
        self.size += len(data or b"")
        if self.timer is None:
            self._arrive()
        self._throttle()

    def _arrive(self) -> None:
        self.timer = None
        if self.other is None or self.other.transport is None:
            return  # until Redis has answered the call
        while self.on_the_way and self.on_the_way[0][0] <= self.loop.time():
            _, data = self.on_the_way.popleft()
            if data is None:
                self.other.transport.close()
                continue
            self.size -= len(data)
            if not self.other.transport.is_closing():
                self.other.transport.write(data)
        if self.on_the_way:
            self.timer = self.loop.call_at(self.on_the_way[0][0], self._arrive)
        self._throttle()

    def _throttle(self) -> None:
        if self.transport.is_closing():
            return
        full = self.size > WINDOW or (self.other is not None and self.other.blocked)
        (self.transport.pause_reading if full else self.transport.resume_reading)()


async def serve(listen: str, to: str) -> None:
    """Be a line until SIGTERM or Ctrl-C.

    Args:
        listen: Address to listen at, ``HOST:PORT`` or a path.
        to: Redis's address, likewise.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, done.set)

    def connect(protocol: Callable[[], asyncio.Protocol]) -> Any:
        if is_path(to):
            return loop.create_unix_connection(protocol, to)
        return loop.create_connection(protocol, *host_and_port(to))

    line = Line(connect)
    if is_path(listen):
        server: asyncio.Server = await loop.create_unix_server(lambda: End(line), listen)
    else:
        server = await loop.create_server(lambda: End(line), *host_and_port(listen))
    await done.wait()
    server.close()
    for end in list(line.ends):
        end.transport.abort()


def is_path(address: str) -> bool:
    """Whether an address is one of a Unix socket."""
    return address.startswith("/")


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def check_address(_ctx: click.Context, _option: click.Parameter, address: str) -> str:
    """Refuse what is no address."""
    host, _, port = address.rpartition(":")
    if not is_path(address) and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise click.BadParameter(f"{address!r} is neither HOST:PORT nor the path of a socket.")
    return address


@click.command()
@click.option("--listen", required=True, callback=check_address, help="HOST:PORT or the path of a socket to make.")
@click.option("--to", required=True, callback=check_address, help="Redis: HOST:PORT or the path of its socket.")
def main(listen: str, to: str) -> None:
    """Stand between a fleet and its Redis, and add to their round trip what a measuring command asks for."""
    _wake_on_time()
    try:
        with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(serve(listen, to))
    except OSError as exc:
        raise click.ClickException(f"Cannot listen at {listen}: {exc.strerror}. Is another line there?") from exc


def _wake_on_time() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    main()
