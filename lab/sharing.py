"""``ctx.share``: a large read-only object that many calls need, brought once to where it is needed.

    table = ctx.share(array)
    pool.map(look_up, [(table, key) for key in keys])       # and in look_up: table.value[key]

What is handed over is a small thing, a ``Shared``; its ``value`` is the object. On threads that is the object itself. In
another process of this host it is made of memory that all of them map; on the cluster the bytes are brought to each host
once, and mapped by its processes. Arrays in it are views of that memory, and read-only, as it is everybody's.

The memory is there as long as some process has a ``Shared`` of it, or one is under way to some process; and no longer than
the program. A process that has met an object keeps what it has made of it for the next call, as long as there may be one.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from lab.errors import ObjectGone

T = TypeVar("T")

IDLE = 2.0
"""Seconds for which a process that was handed an object counts as one that has it, for the next call that brings it."""


class Kept(Generic[T]):
    """What one process has made of a shared object's memory, once it was asked for.

    Args:
        load: Makes it; told this object, as it must not refer to it: what nobody uses is to go at once.
        there: Whether anybody still has the object, this process aside.
    """

    def __init__(self, load: Callable[[Kept[T]], T], there: Callable[[], bool]) -> None:
        self._load, self.there = load, there
        self._lock = threading.RLock()  # a signal's handler may ask in the middle of this
        self._made: list[T] = []
        self.brought = False
        """Whether this process is the one that has brought it to its host."""

    def get(self) -> T:
        """The object; raises what making it raises, and then the next one tries again."""
        with self._lock:
            if not self._made:
                self._made.append(self._load(self))
            return self._made[0]


class Shared(Generic[T]):
    """A read-only object that processes share; ``ctx.share`` makes it, and it may be sent anywhere, in any message.

    Args:
        name: Of the object, the same in all processes.
        kept: What this process has of it.
    """

    def __init__(self, name: str, kept: Kept[T]) -> None:
        self.name, self._kept = name, kept
        self._pid = os.getpid()

    @property
    def value(self) -> T:
        """The object, to be read and not to be written.

        Raises:
            ObjectGone: The program that it belongs to has ended.
        """
        return self._kept.get()

    @property
    def brought(self) -> bool:
        """Whether this process is the one of its host that has fetched the object from elsewhere, for all of them."""
        return self._kept.brought

    def __reduce__(self) -> tuple[Any, ...]:
        if (kept := getattr(_under_way, "kept", None)) is not None:
            kept.append(self)
            return self._travel(True)
        return self._travel(False)

    def _travel(self, held: bool) -> tuple[Any, ...]:
        """What it is pickled as. ``held``: whether whoever sends it keeps it until it has arrived."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Nothing in this process refers to it any more. To be done without waiting for anything."""

    def __del__(self) -> None:
        if getattr(self, "_pid", 0) == os.getpid():  # what a forked process has a copy of is its parent's
            self._let_go()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Itself(Shared[T]):
    """The object itself, where all share one memory."""

    def __init__(self, obj: T) -> None:
        super().__init__(f"{type(obj).__name__} at {id(obj):#x}", Kept(lambda _: obj, lambda: True))

    def _travel(self, held: bool) -> tuple[Any, ...]:
        return Itself, (self.value,)


_under_way = threading.local()


@contextmanager
def keeping() -> Iterator[list[Shared[Any]]]:
    """What is pickled meanwhile by this thread: whoever sends it is to keep it until it has arrived."""
    before = getattr(_under_way, "kept", None)
    kept = _under_way.kept = list[Shared[Any]]()
    try:
        yield kept
    finally:
        _under_way.kept = before


class Shelf:
    """The shared objects that came to this process.

    A thread looks at them now and then, as long as there are some: it lets go of what no call has brought for a while, and
    forgets what nobody has any more.
    """

    def __init__(self) -> None:
        self._begin()
        self._alive: weakref.WeakValueDictionary[str, Shared[Any]] = weakref.WeakValueDictionary()
        self._kept: dict[str, Kept[Any]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Excluded, in a forked child: a lock that a thread which is not there would have to give back.
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._recent: dict[str, tuple[Shared[Any], float]] = {}
        self._looks = False

    def number(self) -> str:
        """A name that nothing else of this process has."""
        return f"{os.getpid()}-{next(self._numbers)}"

    def made(self, shared: Shared[T]) -> Shared[T]:
        """Remember what was made here."""
        with self._lock:
            self._alive[shared.name] = shared
        return shared

    def arrived(
        self, name: str, make: Callable[[Kept[Any]], Shared[Any]], new: Callable[[], Kept[Any]]
    ) -> tuple[Shared[Any], bool]:
        """What came as a pickle, and whether it was not here already.

        Args:
            name: Of the object.
            make: Makes this process one that has it.
            new: Makes what will be kept of it, if nothing is.
        """
        with self._lock:
            shared = self._alive.get(name)
            if fresh := shared is None:
                kept = self._kept.get(name) or new()
                shared = self._alive[name] = make(kept)
                self._kept[name] = kept
            assert shared is not None
            if name in self._kept:  # else it was made here, and is let go of at once
                self._recent[name] = shared, time.monotonic() + IDLE
                self._watch()
            return shared, fresh

    def _watch(self) -> None:
        if not self._looks:
            self._looks = True
            try:
                threading.Thread(target=self._look, name="crosshost-share", daemon=True).start()
            except RuntimeError:  # the interpreter is ending
                self._looks = False

    def _look(self) -> None:
        while True:
            time.sleep(IDLE / 2)
            with self._lock:
                now = time.monotonic()
                idle = [name for name, (_, until) in self._recent.items() if until < now]
                dropped = [self._recent.pop(name) for name in idle]
            del dropped  # without the lock: the last one of a name lets go of the object
            unused = [(name, kept) for name, kept in list(self._kept.items()) if name not in self._alive]
            gone = [name for name, kept in unused if not kept.there()]
            with self._lock:
                forgotten = [self._kept.pop(name, None) for name in gone if name not in self._alive]
                if not self._kept:
                    self._looks = False
                    return
            del forgotten, unused


def gone(name: str) -> ObjectGone:
    """The error for an object that nobody has any more."""
    return ObjectGone(
        f"The shared object {name} is not there any more: no process of the program has it.",
        "Whoever is to read it must get it, or keep it, before the last one that has it lets it go.",
    )


SHELF = Shelf()
"""That of this process."""

_here: Callable[[Any], Shared[Any]] | None = None


def enter(share: Callable[[Any], Shared[Any]] | None) -> None:
    """Say how this program, which was started in a place, shares; None if it was not."""
    global _here
    _here = share


def here() -> Callable[[Any], Shared[Any]] | None:
    """How this program shares; None if nobody has said so."""
    return _here
