"""Data files that travel with a program: read where it is started, found by its processes on hosts under the same paths.

Whoever starts a program names files and folders (``producer run --with data.csv``). They go with its source, in the same
archive (``lab.program.shipped``), and count with it. A host that has the very files, as it is the same machine, uses those.
Another one writes copies, once for all processes of the program, into a folder of its own (``worker.copies``), under their
whole paths; its processes begin in the copy of the directory that the program was started in. So ``open("data.csv")`` finds
there what it finds here. A whole path, ``Path(__file__).with_name("data.csv")`` for example, leads to no copy by itself:
``open`` and what else Python looks for files with are told where it is. Code that is not Python's, such as SQLite, knows
relative paths alone. A path that was made whole among the copies of one host leads to those of another in the same way.

The copies are to be read. What a process writes there is not brought back.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from stat import S_ISDIR, S_ISREG
from typing import Any

from lab.errors import ExitCode, LabError

LIMIT = 32 << 20
"""Bytes of the files that travel with a program, at most; its source counts as well."""

FILES = 9_000
COPIES = "crosshost-copies-"
"""What the name of a folder of copies begins with; the copies of a program lie in one in that."""
_COPY = re.compile(rf"^.*/{COPIES}[^/]+/[^/]+(?=/)")
LOOKS = ("stat", "lstat", "access", "listdir", "scandir", "open", "readlink")
"""Functions of ``os`` that are told of copies."""


class CannotTake(LabError, OSError):
    """A file cannot travel with a program: it is not there, or no file, or too large."""

    exit_code = ExitCode.USAGE


_taken: dict[str, bytes] = {}
_marks: dict[str, list[int]] = {}


def take(paths: Iterable[str]) -> None:
    """Have files, and all that is in folders, travel with this process's program. They are read now.

    Raises:
        CannotTake: One cannot be read, or they are too large.
    """
    size = sum(map(len, _taken.values()))
    for path in _files(paths):
        if path in _taken:
            continue
        try:
            with open(path, "rb") as file:
                data, status = file.read(LIMIT + 1), os.fstat(file.fileno())
        except OSError as exc:
            raise CannotTake(f"Cannot read {path!r}, to send it along: {exc.strerror}.", "Name another file.") from exc
        _taken[path], _marks[path] = data, _mark(status)
        size += len(data)
        if size > LIMIT or len(_taken) > FILES:
            raise _too_much(size > LIMIT)


def _too_much(bytes_: bool) -> CannotTake:
    largest = sorted(_taken, key=lambda path: -len(_taken[path]))[:3]
    sizes = ", ".join(f"{path} {len(_taken[path]) / 1e6:.1f} MB" for path in largest)
    than = f"{LIMIT >> 20} MB" if bytes_ else f"{FILES} files"
    return CannotTake(
        f"What is to travel with the program has more than {than}. Largest: {sizes}.",
        "Read it here, and hand it over: as an argument, or once for all with ctx.share (docs/share.md); or put it on every"
        " host.",
    )


def taken() -> tuple[dict[str, bytes], dict[str, list[int]]]:
    """The files by absolute path, and what tells whether another one is the very same."""
    return _taken, _marks


def check(paths: Iterable[str]) -> None:
    """See that files and folders are there, where none need travel.

    Raises:
        CannotTake: One is not.
    """
    for path in paths:
        _is_folder(path)


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in map(os.path.abspath, paths):
        if _is_folder(path):
            yield from _below(path)
        else:
            yield path


def _is_folder(path: str) -> bool:
    """Whether it is a folder; else it is a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise CannotTake(f"Cannot read {path!r}, to send it along: {exc.strerror}.", "Name another file.") from exc
    if not S_ISDIR(mode) and not S_ISREG(mode):
        raise CannotTake(f"{path!r} is neither a file nor a folder.", "Hand over what comes through it as an argument.")
    return S_ISDIR(mode)


def _below(folder: str) -> Iterator[str]:
    def failed(exc: OSError) -> None:
        raise CannotTake(
            f"Cannot read {exc.filename!r}, to send it along: {exc.strerror}.", "Name another folder."
        ) from exc

    for directory, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        paths = (os.path.join(directory, name) for name in sorted(names))
        yield from (path for path in paths if os.path.isfile(path))  # nor a pipe, which would be waited for


def _mark(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def are_here(marks: dict[str, list[int]]) -> bool:
    """Whether this host has the very files."""
    try:
        return all(_mark(os.stat(path)) == mark for path, mark in marks.items())
    except OSError:
        return False


def redirect(paths: Iterable[str], copies: str) -> None:
    """Have this process find copies by the whole paths of their originals, as far as nothing lies there.

    Args:
        paths: Of the originals.
        copies: The folder in which they lie, under their whole paths; empty if the originals are here.
    """
    files = set(paths)
    known = files | {parent for path in files for parent in _parents(path)}
    lstat = os.lstat  # which is not told of copies

    def led(path: Any) -> Any:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return path  # a descriptor
        name = os.fspath(path)
        text = os.fsdecode(name)
        full = os.path.normpath(text)
        if not os.path.isabs(text) or (there := original(full)) not in known or _lies(lstat, full):
            return path
        return os.fsencode(copies + there) if isinstance(name, bytes) else copies + there

    for name in LOOKS:
        setattr(os, name, _led(getattr(os, name), led))
    builtins.open = io.open = _led(io.open, led)


def original(path: str) -> str:
    """The whole path of which one is a copy on some host; itself if it is none."""
    return _COPY.sub("", path)


def _parents(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _lies(lstat: Callable[[str], object], path: str) -> bool:
    try:
        lstat(path)
    except OSError as exc:
        return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
    return True


def _led(function: Callable[..., Any], led: Callable[[Any], Any]) -> Any:
    @wraps(function)
    def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        return function(led(path), *args, **kwargs)

    return call
