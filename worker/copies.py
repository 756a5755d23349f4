"""The copies of data files that came with programs (``lab.program.along``): on this host's disk, once for each program.

A process that needs them, and finds none, writes them; others that come meanwhile wait for it. Who uses copies holds a lock
on them for as long as it lives. When there are too many, those that nobody holds go. All of them lie in one folder of the
host's supervisor, which goes with it; what one left that was killed, the next one on this machine removes.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.errors import CannotLoad
from lab.program import along
from lab.program.shipped import Program

KEEP = 2 * along.LIMIT
"""Bytes of copies on one host beyond which those go that nobody uses."""

_NAME = re.compile(rf"{along.COPIES}(\d+)-\w+")


class Copies:
    """All copies of one host.

    Made by its supervisor before it forks anything: so the processes know the folder, which the first that needs it makes.
    The root of a detached program has those that its parent, a slot for jobs, has made for it alone.

    Args:
        folder: Where those of another process lie; a new place when empty.

    Attributes:
        folder: Where they lie.
    """

    def __init__(self, folder: str = "") -> None:
        name = f"{along.COPIES}{os.getpid()}-{secrets.token_hex(8)}"
        self.folder = Path(folder or os.path.join(tempfile.gettempdir(), name))
        _remove_left(self.folder.parent)

    def bring(self, program: Program, digest: str, directory: str) -> str:
        """Have this process find the data that came with a program: copies of it, unless this host has the very files.

        Args:
            program: The program.
            digest: The SHA-256 of its archive.
            directory: That of the process which has started this one, or the copy of it on that one's host.

        Returns:
            The directory to begin in, so that relative paths lead to the data; empty if there is none.

        Raises:
            CannotLoad: As of ``of``.
        """
        if not program.data:
            return ""
        made = ""
        if not along.are_here(program.data):
            made = self.of(digest, {path: program.files[path] for path in program.data})
        along.redirect(program.data, made)
        begins = made + along.original(directory)
        return begins if directory and os.path.isdir(begins) else ""

    def of(self, program: str, files: Mapping[str, bytes]) -> str:
        """The folder with the copies of a program's files, under their whole paths; this process holds it until its end.

        Args:
            program: The SHA-256 of its archive.
            files: The files by absolute path.

        Raises:
            CannotLoad: There is no room for them, or a path is none that a file can have.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            return self._of(program, files)
        except (OSError, ValueError) as exc:
            raise CannotLoad(
                f"The data files that came with the program cannot be written on this host: {exc}",
                f"Is there room? df -h {self.folder.parent}. Or put them on every host, and leave --with out.",
            ) from exc

    def _of(self, program: str, files: Mapping[str, bytes]) -> str:
        made = self.folder / program
        # kept open, and by what this process forks, on purpose: the lock is held as long as anybody could read the copies
        lock = os.open(f"{made}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if made.is_dir():
                return str(made)
            # Excluded: two that write, and copies that are removed between a look at them and the lock: it is looked again.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.is_dir():
                self._make_room(program, sum(map(len, files.values())))
                _write(made, files)

    def _make_room(self, program: str, size: int) -> None:
        kept = [path for path in self.folder.iterdir() if path.is_dir() and path.name != program]
        size += sum(_size(path) for path in kept)
        for path in sorted(kept, key=lambda path: path.stat().st_mtime):
            if size <= KEEP:
                return
            with _unused(Path(f"{path}.lock")) as unused:
                if unused:
                    size -= _size(path)
                    _remove(path)

    def close(self) -> None:
        """Remove all of them; nobody reads them any more."""
        _remove(self.folder)


HERE: Copies | None = None
"""Those of this host; None where no supervisor has begun."""


@contextmanager
def _unused(lock: Path) -> Iterator[bool]:
    """Whether nobody holds copies; while it is looked at, and they are removed, nobody can take hold of them."""
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _write(made: Path, files: Mapping[str, bytes]) -> None:
    """Write copies that may be read alone, all of them or none."""
    unfinished = Path(f"{made}.unfinished")
    _remove(unfinished)  # of one who was killed
    unfinished.mkdir(mode=0o700)
    try:
        for path, data in files.items():
            if not os.path.isabs(path) or os.path.normpath(path) != path:
                raise ValueError(f"{path!r} is no whole path")
            copy = Path(str(unfinished) + path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
            copy.chmod(0o400)
        for directory, _, _ in os.walk(unfinished, topdown=False):
            os.chmod(directory, 0o500)
        os.chmod(unfinished, 0o700)  # to be renamed, where a directory that may not be written to cannot be
        os.rename(unfinished, made)
    except BaseException:
        _remove(unfinished)
        raise


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> None:
    for directory, _, _ in os.walk(folder):
        with suppress(OSError):
            os.chmod(directory, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_left(parent: Path) -> None:
    """Remove what supervisors of this user left that live no more."""
    with suppress(OSError):
        for path in parent.iterdir():
            found = _NAME.fullmatch(path.name)
            if found and path.stat().st_uid == os.getuid() and not _lives(int(found[1])):
                _remove(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
