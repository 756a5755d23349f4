"""What the processes of a host share (``ctx.share``): memory that the supervisor makes, and one of them fills.

It is a file without a name, which goes with the last process that has it open: so nothing is left of a host that was killed.
A process that asks for an object gets the file, when it is filled; the first one fills it. If that one ends, fails, is
stopped, or does not say for a lease that it goes on, the next of those who wait fills another. Once it is filled, the kernel
lets nobody write to it any more (``F_SEAL_WRITE``, on Linux).

The supervisor holds a file as long as some process in the run has the object, and the run goes on, with or without a process
on this host: the next one finds it here.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lab.errors import LabError
from lab.settings import Settings
from lab.store.run import Run
from lab.store.script import Script
from lab.store.store import Store
from worker.archives import in_memory
from worker.hosted import Hosted

log = logging.getLogger("crosshost.worker")

MOST = 1000
"""Objects of one run that a host shares; who asks for more fetches them for itself."""
_NAME = re.compile(r"[0-9a-f]{16}")
_SEALS = ("F_SEAL_WRITE", "F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")

THERE = Script(
    """
local root, found = alive('root'), {}
local gone = not root or tonumber(root) < now()
for i = 3, #ARGV do found[#found + 1] = (not gone and redis.call('EXISTS', base .. 'share:' .. ARGV[i]) == 1) and 1 or 0 end
return found
""",
    numbered=False,
)


@dataclass(eq=False)
class Held:
    """One object on this host.

    Attributes:
        size: Bytes.
        file: Its memory; None while nobody fills one.
        filled: Whether it is all there.
        filler: Who fills it.
        heard_at: When the filler last said that it goes on, by ``time.monotonic()``.
        waiting: Who has asked for it meanwhile.
    """

    size: int
    file: int | None = None
    filled: bool = False
    filler: Hosted | None = None
    heard_at: float = 0.0
    waiting: deque[Hosted] = field(default_factory=deque)

    def drop(self) -> None:
        """Let go of its memory, which is there as long as some process has it mapped."""
        if self.file is not None:
            os.close(self.file)
        self.file, self.filler, self.filled = None, None, False


class Shares:
    """The objects that are on this host.

    Args:
        settings: The host's settings.
        store: Redis.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._held: dict[tuple[str, str], Held] = {}
        """By run and name."""

    def read(self, hosted: Hosted) -> bool:
        """Hear what a process says; False if it is not to be listened to any more."""
        try:
            data = hosted.share.recv(1 << 12)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, hosted.said = (hosted.said + data).split(b"\n")
        try:
            for line in lines:
                self._hear(hosted, json.loads(line))
        except Exception:  # noqa: BLE001 - it is a process of somebody's program, and may say anything
            return False
        return bool(data) and len(hosted.said) < 1 << 12

    def _hear(self, hosted: Hosted, said: dict[str, Any]) -> None:
        if "get" in said:
            self._get(hosted, str(said["get"]), int(said["size"]))
            return
        ((what, name),) = said.items()
        held = self._held.get((hosted.run.id, name))
        if held is None or held.filler is not hosted or held.filled:
            return  # another one has taken over meanwhile
        if what == "on":
            held.heard_at = time.monotonic()
        elif what == "filled":
            self._filled(held)
        else:
            self._next(held)

    def _get(self, hosted: Hosted, name: str, size: int) -> None:
        key = hosted.run.id, name
        held = self._held.get(key)
        if held is None:
            many = sum(run == hosted.run.id for run, _ in self._held)
            if many >= MOST or not _NAME.fullmatch(name) or not 0 < size <= self._settings.message_size:
                _answer(hosted, {"no": "it is too much"})
                return
            held = self._held[key] = Held(size)
        if size != held.size:
            _answer(hosted, {"no": "its size is another one"})
        elif held.filled:
            _answer(hosted, {"fill": False}, held.file)
        else:
            held.waiting.append(hosted)
            if held.filler is None:
                self._next(held)

    def _filled(self, held: Held) -> None:
        held.filled, held.filler = True, None
        with suppress(OSError):  # EBUSY, where its filler has it mapped still: another way to write to it is not known
            if seals := sum(getattr(fcntl, name, 0) for name in _SEALS):
                fcntl.fcntl(held.file or -1, fcntl.F_ADD_SEALS, seals)
        while held.waiting:
            _answer(held.waiting.popleft(), {"fill": False}, held.file)

    def _next(self, held: Held) -> None:
        """Have another one fill it, if somebody waits for it, in memory of its own: who was to may still write to his."""
        held.drop()
        while held.waiting and held.filler is None:
            hosted = held.waiting.popleft()
            try:
                held.file = in_memory(b"", sealable=True)
                os.ftruncate(held.file, held.size)
            except OSError as exc:
                log.error("no memory to share on this host: %s", exc)
                held.drop()
                _answer(hosted, {"no": str(exc)})
                continue
            if _answer(hosted, {"fill": True}, held.file):
                held.filler, held.heard_at = hosted, time.monotonic()

    def left(self, hosted: Hosted) -> None:
        """A process has ended."""
        for (run, _), held in self._held.items():
            if run == hosted.run.id:
                with suppress(ValueError):
                    held.waiting.remove(hosted)
        self.stopped(hosted)

    def stopped(self, hosted: Hosted) -> None:
        """A process does not go on: have another one do what it was to do."""
        for held in self._held.values():
            if held.filler is hosted:
                self._next(held)

    def look(self) -> None:
        """Have those replaced who do not go on; give up what nobody has any more."""
        late = time.monotonic() - self._settings.lease
        for held in self._held.values():
            if held.filler is not None and held.heard_at < late and held.waiting:
                self._next(held)
        by_run: dict[str, list[str]] = {}
        for run, name in self._held:
            by_run.setdefault(run, []).append(name)
        for run, names in by_run.items():
            with suppress(LabError, OSError):  # the next look asks again
                asks = Run(self._settings, self._store, run, "supervisor")
                for name, there in zip(names, asks.eval(THERE, [], *names), strict=True):
                    if not there:
                        gone = self._held.pop((run, name))
                        gone.drop()
                        for hosted in gone.waiting:
                            _answer(hosted, {"no": "nobody has it any more"})

    def forsake(self) -> None:
        """Close all, in a process that is not the supervisor."""
        for held in self._held.values():
            held.drop()


def _answer(hosted: Hosted, said: dict[str, Any], file: int | None = None) -> bool:
    try:
        socket.send_fds(hosted.share, [json.dumps(said).encode() + b"\n"], [] if file is None else [file])
    except OSError:  # it has ended, or does not read; who does not answer is not asked
        return False
    return True
