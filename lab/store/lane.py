"""A stream of commands to Redis that survives the connection that carries it."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from lab.errors import BrokerUnreachable
from lab.store.link import READ_LARGE, Link
from lab.store.outage import LOST, Outage
from lab.store.script import NUMBERED, RECALL, translated

Command = tuple[Any, ...]
T = TypeVar("T")


class Lane:
    """Commands that Redis runs in the order in which they were sent, each once, whatever happens to the connection.

    What was sent and not yet answered is remembered. When the connection breaks, a new one is made, the journal says how far
    Redis came (see ``script``), and the rest is sent again. Commands that are not numbered are sent again too, so they must
    be such that running them twice does no harm; in one batch, they come after the numbered ones.

    Args:
        link: The connection.
        outage: What is known about the server's absence.
    """

    def __init__(self, link: Link, outage: Outage) -> None:
        self.link = link
        self.sent = 0  # commands ever
        self.unread_bytes = 0
        self._outage = outage
        self._name = secrets.token_hex(4)
        self._number = 0
        self._unread: deque[Command] = deque()
        self._replies: deque[Any] = deque()  # to the oldest of the unread, known after the connection was made again

    @property
    def unread(self) -> int:
        """Commands without a reply."""
        return len(self._unread)

    @property
    def oldest(self) -> Command:
        """The command that the next ``read`` is about."""
        return self._unread[0]

    def ask(self, command: Command) -> Any:
        """Send one command when nothing is unread; its reply, an error reply too. As ``send`` and ``read``, in fewer steps.

        Raises:
            BrokerUnreachable: There is no connection, and none could be made for as long as we wait.
        """
        if not self.link.closed:
            numbered = self._numbered([command])
            try:
                self.link.send(numbered)
                return self.link.read(command[0] is READ_LARGE)
            except LOST:
                # Whether it was run, the journal knows by this number.
                return self._ask_again(numbered)
            except BaseException:
                self.link.close()  # excluded: the next command taking the reply that is still on its way for its own
                raise
        return self._ask_again(self._numbered([command]))

    def _ask_again(self, numbered: list[Command]) -> Any:
        mark = self.sent
        try:
            self.sent += 1
            self._unread.extend(numbered)
            self.resume()
            return self.read()
        except BaseException:
            self.abandon(mark)
            raise

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands.

        Raises:
            BrokerUnreachable: There is no connection, and none could be made for as long as we wait.
        """
        numbered = self._enlist(commands)
        if self.link.closed:
            self.resume()
            return
        try:
            self.unread_bytes += self.link.send(numbered)
        except LOST:
            self.resume()

    def send_if_open(self, commands: Sequence[Command]) -> bool:
        """Send commands without ever waiting; False if there is no connection now. If it breaks, the next user resumes."""
        if self.link.closed:
            return False
        try:
            self.unread_bytes += self.link.send(self._enlist(commands))
        except LOST:
            self.link.close()
        return True

    def read(self) -> Any:
        """The reply to the oldest command without one; an error reply is returned, not raised."""
        reply = self._replies.popleft() if self._replies else self._receive()
        self._unread.popleft()
        if not self._unread:
            self.unread_bytes = 0
        return reply

    def _receive(self) -> Any:
        if not self.link.closed:
            try:
                return self.link.read(self._unread[0][0] is READ_LARGE)
            except LOST:
                pass
        self.resume()
        return self._replies.popleft()

    def abandon(self, mark: int) -> None:
        """Give up every command sent since ``sent`` was ``mark``, as its sender was interrupted.

        Their replies may be half read, so the connection goes as well; what was sent before is taken up again by whoever
        uses the lane next.
        """
        self.link.close()
        self._replies.clear()
        for _ in range(min(self.sent - mark, len(self._unread))):
            self._unread.pop()

    def attempt(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, one of which may block, and read their replies.

        Raises:
            Broken: The connection broke; it has been made again. Nothing was sent again.
            BrokerUnreachable: It could not be made again.
        """
        if self.link.closed:
            self.connect()
        numbered = self._numbered(commands)
        try:
            self.link.send(numbered)
            return [self.link.read() for _ in numbered]
        except LOST as exc:
            raise Broken(self._how_far(numbered)) from exc
        except BaseException:
            self.link.close()  # a reply may be half read, or on its way
            raise

    def _how_far(self, numbered: list[Command]) -> int:
        try:
            self._unread.extend(numbered)
            return self._connected_again(self._applied)
        except BaseException:
            self.link.close()
            raise
        finally:
            self._unread.clear()

    def resume(self) -> None:
        """Make the connection again, and have Redis do what it has not done of what it was sent."""
        self._replies = self._connected_again(self._catch_up)

    def _connected_again(self, then: Callable[[], T]) -> T:
        """Connect, as often as it takes for ``then`` to come to its end over one connection."""
        while True:
            self.connect()
            try:
                return then()
            except BrokerUnreachable:  # an OSError as well, but not one to try again after
                raise
            except LOST:
                continue

    def connect(self) -> None:
        """Make the connection anew, waiting for a Redis that is away; nothing sent over the former takes effect any more."""
        while True:
            try:
                self.link.connect_again()
            except (redis.RedisError, OSError) as exc:
                self._outage.pause(exc)
            else:
                self._outage.over()
                return

    def _catch_up(self) -> deque[Any]:
        done, reply = self._done()
        rest = list(self._unread)[done:]
        if rest:
            self.link.send(rest)
        return deque([*[None] * (done - 1), *[reply] * (done > 0), *(self.link.read() for _ in rest)])

    def _applied(self) -> int:
        done, _ = self._done()
        return sum(command[0] is NUMBERED for command in list(self._unread)[:done])

    def _done(self) -> tuple[int, Any]:
        """How many of the unread commands have surely been run, and the reply to the last of those."""
        asked: dict[str, Command] = {}
        for command in self._unread:
            if command[0] is NUMBERED:
                processes, journal, me, ttl = command[3], command[4], *command[3 + command[2] :][:2]
                asked[journal] = ("EVALSHA", RECALL.sha, 2, processes, journal, me, ttl, self._name)
        if not asked:
            return 0, None
        self.link.send(list(asked.values()))
        last, reply = 0, None
        for answer in [self.link.read() for _ in asked]:
            if answer == -1 or isinstance(answer, Exception):
                self._unread.clear()  # of a run or a process that is no more; the lane's next user may belong to another
                raise lost_data(self._outage.address) if answer == -1 else translated(answer)
            if answer and int(answer[0]) > last:
                last, reply = int(answer[0]), answer[1] if len(answer) > 1 else None
        numbered = [n for n, command in enumerate(self._unread) if command[0] is NUMBERED and command[-1] <= last]
        return (numbered[-1] + 1, reply) if numbered else (0, None)

    def _numbered(self, commands: Sequence[Command]) -> list[Command]:
        numbered = []
        for command in commands:
            if command[0] is NUMBERED:
                self._number += 1
                command = (*command, self._name, self._number)
            numbered.append(command)
        return numbered

    def _enlist(self, commands: Sequence[Command]) -> list[Command]:
        """Number the commands that need it, and remember all until their replies are read."""
        numbered = self._numbered(commands)
        many, extend = len(numbered), self._unread.extend
        # Excluded: an interrupt between these two, and ``abandon`` giving up what somebody else has sent.
        self.sent += many
        extend(numbered)
        return numbered


class Broken(Exception):
    """A connection broke in the middle of a batch, and has been made again.

    Attributes:
        applied: How many of the batch's numbered commands took effect.
    """

    def __init__(self, applied: int) -> None:
        super().__init__(applied)
        self.applied = applied


def lost_data(address: str) -> BrokerUnreachable:
    """The error for a Redis that has forgotten the run."""
    return BrokerUnreachable(
        f"Redis at {address} is back, but does not know this program any more.",
        "It was restarted without its append-only file, flushed, or away for too long. Start it with: appendonly yes",
    )
