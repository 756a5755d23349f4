"""Watch: a descriptor for one end of a pipe, so that a selector can wait on it beside sockets, files and sentinels.

A pipe of this host's own is readable when a message lies in the end's list in Redis, or the end-of-file mark. Who sends
cannot write into it, so it *rings*: the script that appends a message also appends a line to the ``bell`` of each process
that watches this end, and a thread of that process, blocked on the bell, makes the pipe readable.

To *arm* a watch is one script: it asks for a ring and says how many messages are there. Excluded by that: a message that
comes between looking and asking. A watch rings once, then it is armed again by the next look. Each look has a number,
which the ring repeats. Excluded by that: a ring for a message that has been read meanwhile, which would say "readable" for
an empty list.

On Redis: hash ``pipe:ID:a:watchers``, who is to be rung and for which look; list ``bell:PROCESS``, the rings.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol

from lab.errors import BrokerUnreachable, KeyLost, LabError
from lab.store.run import Run
from lab.store.script import Script

LOOK_AGAIN = 5.0
"""Seconds after which every watch looks by itself: a ring can be lost with a connection, or with a server's memory."""

ARM = Script(
    """
if redis.call('EXISTS', KEYS[3] .. ':holders') == 0 then return 0 end  -- closed meanwhile: see connection.SEND
redis.call('HSET', KEYS[4], ARGV[3], ARGV[4])
create(KEYS[4])
create(base .. 'bell:' .. me)
return redis.call('LLEN', KEYS[3])
""",
    numbered=False,
)

_names = itertools.count()


class Watch:
    """The descriptor of one end in this process.

    Args:
        inbox: The list that the end reads.
    """

    _closed = True  # until there is something to close

    def __init__(self, run: Run, inbox: str) -> None:
        self._run, self._keys = run, [inbox, f"{inbox}:watchers"]
        self.name = f"{run.me}/{next(_names)}"
        self._lock = threading.Lock()
        self._looks = 0
        self._readable = False
        self._read_end, self._write_end = os.pipe()
        self._closed = False
        bell(run).add(self)

    def fileno(self) -> int:
        """The descriptor, up to date, which takes a round trip.

        Excluded by looking each time: a selector that is ready for another reason just now, and finds this one not readable
        although the message was sent before, as its ring is still on the way; or readable although another holder has read.

        Raises:
            BrokerUnreachable: Redis does not answer.
        """
        self.look()
        return self._read_end

    def look(self) -> None:
        """Ask what is there and for a ring when more comes, after a message was taken or to be sure."""
        with self._lock:
            if self._closed:
                return
            self._looks += 1
            self._show(False)
            try:
                self._show(self._run.eval(ARM, self._keys, self.name, self._looks) > 0)
            except BaseException:
                self._show(True)  # whoever waits looks again, and has the error then
                raise

    def after_read(self) -> None:
        """Look; but what has been read is not lost because this fails."""
        with suppress(BrokerUnreachable):
            self.look()

    def ring(self, look: int | None = None) -> None:
        """Something has come since that look; since any if None."""
        with self._lock:
            if look in (None, self._looks) and not self._closed:
                self._show(True)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read_end)
                os.close(self._write_end)

    __del__ = close

    def _show(self, readable: bool) -> None:
        if readable and not self._readable:
            os.write(self._write_end, b"!")
        elif self._readable and not readable:
            os.read(self._read_end, 1)
        self._readable = readable


class Rung(Protocol):
    """What a bell rings: a Watch, or a queue's Reader."""

    name: str

    def ring(self, look: int | None = None) -> None:
        """Something has come since that look; since any if None."""

    def look(self) -> None:
        """Look by itself."""


class Bell:
    """The thread of a process that waits for rings and hands them to its watches."""

    def __init__(self, run: Run) -> None:
        self._run, self._key = run, run.key("bell", run.me)
        self._watches: weakref.WeakValueDictionary[str, Rung] = weakref.WeakValueDictionary()
        threading.Thread(target=self._listen, name="crosshost-bell", daemon=True).start()

    def add(self, watch: Rung) -> None:
        """Have a watch rung."""
        self._watches[watch.name] = watch

    def _listen(self) -> None:
        while not self._run.closed:
            try:
                try:
                    self._ring_all(self._run.take(self._key, LOOK_AGAIN, 100))
                except KeyLost as exc:
                    self._run.put_right(exc)
            except LabError:
                for watch in list(self._watches.values()):
                    watch.ring()  # whoever waits hears from its next command what is wrong
                self._run.pause(0.5)  # a bounded pause between attempts to reach Redis again
        with _bells_lock:
            _bells.pop(self._run, None)

    def _ring_all(self, rings: list[bytes]) -> None:
        for line in rings:
            name, _, look = line.decode(errors="replace").partition(" ")
            if (watch := self._watches.get(name)) and look.isdecimal():
                watch.ring(int(look))
        if not rings and not self._run.closed:
            for watch in list(self._watches.values()):
                watch.look()


_bells: dict[Run, Bell] = {}
_bells_lock = threading.Lock()


def bell(run: Run) -> Bell:
    """The bell of this process."""
    with _bells_lock:  # excluded: two threads that watch for the first time at once, two listeners
        if run not in _bells:
            _bells[run] = Bell(run)
        return _bells[run]
