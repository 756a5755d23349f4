"""``ctx.share`` between processes of this host: a file in memory, which each of them maps.

The kernel counts who has it. Each process that has the object has a name (a hard link) of the file, and so has each message
in which it is under way; when the last name is gone, so is the file, and its memory with the last mapping.

The files of a program are in one directory, which nobody else can enter and which goes with the program. Whoever uses it
holds a lock on it, which a kill gives back: what a killed program has left there, the next one takes away.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from multiprocessing import process, util
from pathlib import Path
from typing import Any, TypeVar

from lab.sharing import SHELF, Kept, Shared, gone

T = TypeVar("T")

PREFIX = "crosshost-"
YOUNG = 60.0
"""Seconds for which a directory that nobody has a lock on is left alone: its program may be about to use it."""
LOOK = 2.0
"""Seconds between two looks whether a process has ended without taking its names away."""


def memory_folder() -> Path:
    """Where files are memory, on Linux; elsewhere where files are for a while."""
    shared = Path("/dev/shm")  # noqa: S108
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


class Room:
    """The directory of this program, as this process uses it."""

    def __init__(self) -> None:
        self.path = _own_folder()
        self.path.mkdir(mode=0o700, exist_ok=True)
        import fcntl  # POSIX only, as is all of this but its import

        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        if remove_at_exit():
            clear(YOUNG)
            threading.Thread(target=self._look, name="crosshost-share-files", daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK)
            self.sweep()

    def sweep(self) -> None:
        """Take away the names of processes that have ended."""
        with suppress(OSError):
            for entry in list(self.path.iterdir()):
                owner = re.fullmatch(r".*\.(\d+)-\d+", entry.name)
                if owner and not _alive(int(owner[1])):
                    entry.unlink(missing_ok=True)


def _own_folder() -> Path:
    # A key that all processes of a program have from the first one, and nobody else.
    known = hashlib.sha256(b"crosshost share " + bytes(process.current_process().authkey)).hexdigest()
    return memory_folder() / f"{PREFIX}{known[:24]}"


@cache
def _remove_at_exit(pid: int) -> None:
    # after multiprocessing's own exit function has joined the children
    util.Finalize(None, _remove, (pid,), exitpriority=-100)


def _remove(pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(_own_folder(), ignore_errors=True)


def remove_at_exit() -> bool:
    """Have the directory of this program go with it, whichever process has made it; whether this one is the first."""
    # A process that is just being started does not know its parent yet.
    if getattr(process.current_process(), "_inheriting", False) or process.parent_process() is not None:
        return False
    _remove_at_exit(os.getpid())
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def clear(young: float = 0.0) -> None:
    """Remove what programs that were killed have left.

    Args:
        young: Seconds for which a directory is left alone after it was last changed.
    """
    import fcntl

    for folder in memory_folder().glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid() or time.time() - folder.stat().st_mtime < young:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


_rooms: dict[int, Room] = {}
_making = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rooms.clear)


def _room() -> Room:
    with _making:
        if os.getpid() not in _rooms:
            _rooms[os.getpid()] = Room()
        return _rooms[os.getpid()]


class SharedFile(Shared[T]):
    """An object that processes of this host share.

    Args:
        name: Of the object.
        kept: What this process has of it.
        path: The name of the file that this process has.
    """

    def __init__(self, name: str, kept: Kept[T], path: Path) -> None:
        super().__init__(name, kept)
        self._path = path

    def _travel(self, held: bool) -> tuple[Any, ...]:
        # Whoever sends it cannot tell when it has arrived, so it has a name of the file on its way.
        message = self._path.with_name(f"{self.name}.under-way.{secrets.token_hex(8)}")
        try:
            os.link(self._path, message)
        except FileNotFoundError:
            raise gone(self.name) from None
        return _arrive, (self.name, message.name)

    def _let_go(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)


def share(obj: T) -> SharedFile[T]:
    """Share an object with processes of this host.

    Raises:
        NotImplementedError: This is Windows.
        OSError: There is no memory left for it.
        Whatever pickling raises.
    """
    from lab import buffers  # here, as cloudpickle takes long to import

    if os.name == "nt":
        raise NotImplementedError(
            "share() between processes needs Linux or macOS; between threads it is there everywhere"
        )
    name = secrets.token_hex(8)
    path = _room().path / f"{name}.{SHELF.number()}"
    parts = buffers.block(*buffers.Packer(0, views=True).pack(obj))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(file, parts)
    except BaseException as exc:
        path.unlink()
        if isinstance(exc, OSError) and exc.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free
            exc.add_note(
                f"The object to share has {buffers.size(parts):,} bytes, and {path.parent.parent} has {free:,} left."
                " In a container, give it more: docker run --shm-size 2g, or shm_size in a Compose file."
            )
        raise
    finally:
        os.close(file)
    shared = SharedFile(name, Kept(lambda _: obj, lambda: True), path)
    SHELF.made(shared)
    return shared


def _write(file: int, parts: Iterable[Any]) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(file, left) :]


def _arrive(name: str, message: str) -> SharedFile[Any]:
    room = _room()
    came = room.path / message

    def make(kept: Kept[Any]) -> SharedFile[Any]:
        mine = room.path / f"{name}.{SHELF.number()}"
        try:
            os.rename(came, mine)
        except FileNotFoundError:  # it is loaded for the second time
            _link_of_another(room, name, mine)
        return SharedFile(name, kept, mine)

    shared, fresh = SHELF.arrived(name, make, lambda: _Mapped(room, name).kept())
    if not fresh:
        came.unlink(missing_ok=True)
    assert isinstance(shared, SharedFile)
    return shared


def _link_of_another(room: Room, name: str, mine: Path) -> None:
    for other in room.path.glob(f"{name}.*"):
        with suppress(FileNotFoundError):  # it was let go of just now
            os.link(other, mine)
            return
    raise gone(name)


class _Mapped:
    """The file as this process maps it."""

    def __init__(self, room: Room, name: str) -> None:
        self._room, self._name = room, name

    def kept(self) -> Kept[Any]:
        """What this process keeps of it."""
        return Kept(self._load, self._there)

    def _load(self, _kept: Kept[Any]) -> Any:
        from lab import buffers

        for name in self._room.path.glob(f"{self._name}.*"):
            with suppress(FileNotFoundError), open(name, "rb") as file:
                return buffers.loads(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        raise gone(self._name)

    def _there(self) -> bool:
        return next(self._room.path.glob(f"{self._name}.*"), None) is not None
