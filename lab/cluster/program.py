"""The program's own source, as its processes on other hosts get it.

``spawn`` starts a child by running the main module's file again, so it needs the file. A host has none of the program's
files. It gets this instead: the main module, and the modules and packages beside it which import statements name or
which are imported by now, as one archive. A process is sent with the archive's SHA-256 in its signed head; a slot
fetches the archive once, verifies its signature and its sum, and keeps it in memory: nothing is written to a disk. The
child imports from the archive, and runs the main module as spawn's children do, under the name ``__mp_main__``.

Only ``.py`` files go along. Data beside them stays where it is: hand it over as arguments.

On Redis: hash ``program:SHA256`` of the run, field ``archive``: the sealed archive, made by the run's root.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

import lab
from lab import source, standin
from lab.cluster.run import Run
from lab.cluster.script import Script
from lab.errors import ProgramTooLarge, WrongKey

LIMIT = 32 << 20
"""Bytes of source that a program may have: what an archive weighs in Redis, and in the memory of every slot, at most."""

PUBLISH = Script("redis.call('HSET', KEYS[3], 'archive', ARGV[3]) create(KEYS[3]) return 1", fenced=True)


@dataclass(frozen=True)
class Program:
    """The source of a program.

    Attributes:
        root: Directory of its main module.
        main: Path of the main module's file; empty if it is imported by its name, as under ``python -m``.
        substituted: Whether its ``import multiprocessing`` means the cluster's (``lab.standin``).
        files: Sources by absolute path.
    """

    root: str
    main: str
    substituted: bool
    files: dict[str, bytes]

    def pack(self) -> bytes:
        """The program as an archive; the same program makes the same bytes."""
        buffer = io.BytesIO()
        paths = sorted(self.files)
        about = {"root": self.root, "main": self.main, "substituted": self.substituted, "paths": paths}
        with zipfile.ZipFile(buffer, "w") as archive:
            entries = [json.dumps(about).encode(), *(self.files[path] for path in paths)]
            for number, data in enumerate(entries):  # by number: a path need not be text that a zip can name
                archive.writestr(zipfile.ZipInfo(str(number)), data, zipfile.ZIP_DEFLATED, compresslevel=1)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, archive: bytes) -> Program:
        """The program in an archive whose signature was verified."""
        with zipfile.ZipFile(io.BytesIO(archive)) as entries:
            about = json.loads(entries.read("0"))
            files = {path: entries.read(str(number)) for number, path in enumerate(about.pop("paths"), 1)}
        return cls(**about, files=files)

    def install(self, digest: str) -> source.Own:
        """Import from this program from now on; what this process starts in turn gets the same one."""
        global _inherited
        _inherited = digest
        stand_in = standin.StandIn(lab.get_context("cluster")) if self.substituted else None
        own = source.Own(self.root, self.files, stand_in)
        own.install()
        return own


_inherited: str | None = None
_published: dict[str, Any] = {}
_lock = threading.Lock()


def publish(run: Run) -> str | None:
    """Make the program's source available to the run's hosts, once.

    Returns:
        The SHA-256 of its archive, hex; None if the program has no source of its own, as in an interactive session.

    Raises:
        ProgramTooLarge: It has more than ``LIMIT`` bytes.
    """
    if _inherited is not None:
        return _inherited
    with _lock:  # excluded: the threads of two pools collecting the same program at once
        state = (run.id, len(sys.modules), sys.modules.get("__main__"))
        if _published.get("state") != state:
            program = collect()
            digest = None if program is None else _publish(run, program.pack())
            _published.update(state=state, digest=digest)
        found: str | None = _published["digest"]
        return found


def _publish(run: Run, archive: bytes) -> str:
    digest = hashlib.sha256(archive).hexdigest()
    if (run.id, digest) != _published.get("last"):
        key = run.key("program", digest)
        run.eval(PUBLISH, [key], run.seal(key, archive))
        _published["last"] = (run.id, digest)
    return digest


def fetch(run: Run, digest: str) -> bytes:
    """The archive with this sum, verified.

    Raises:
        WrongKey: It is not there, or carries no valid signature, or is another one.
    """
    key = run.key("program", digest)
    blob = run.store.call("HGET", key, "archive")
    if blob is None:
        raise WrongKey("The source of the program is not in Redis; the process that needs it is not run.")
    archive = bytes(run.unseal(key, blob))
    if hashlib.sha256(archive).hexdigest() != digest:
        raise WrongKey(
            "The source of the program is not the one that its process was sent with; it was refused unread."
        )
    return archive


def collect() -> Program | None:
    """The source of this program; None if its main module is not a file of its own.

    What was read once is not read again: an edit made while the program runs does not divide its processes.
    """
    installed = source.installed()
    root = source.root_of_main() if installed is None else installed.root
    if root is None:
        return None
    main: Any = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    collector = _collectors.setdefault(root, _Collector(root))
    if spec is None:
        path = os.path.abspath(main.__file__)
        collector.add(path)
    else:
        path = ""
        collector.add_module(spec.name.partition(".")[0])
    for module in list(sys.modules.values()):
        if isinstance(file := getattr(module, "__file__", None), str):
            collector.add_own(os.path.abspath(file))
    collector.follow()
    return Program(root, path, installed is not None and installed.stand_in is not None, dict(collector.files))


class _Collector:
    """Gathers the program's files, from those it is given to those that their import statements name.

    A package is taken as a whole, as what it imports of itself may be named at run time. Whatever cannot be read or
    parsed is for Python to complain about, when it is imported.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.files: dict[str, bytes] = {}
        self._size = 0
        self._unread: list[bytes] = []
        self._known: set[str] = set()

    def add(self, path: str) -> None:
        """Take one source file."""
        if path in self.files or not os.path.isfile(path):  # nor a pipe, which would be waited for
            return
        try:
            with open(path, "rb") as file:
                data = file.read(LIMIT + 1)
        except OSError:
            return
        self.files[path] = data
        self._unread.append(data)
        self._size += len(data)
        if self._size > LIMIT:
            raise self._too_large()

    def add_own(self, path: str) -> None:
        """Take a source file, if it is the program's."""
        if path.endswith(".py") and source.is_own(path, self._root):
            self.add(path)

    def add_module(self, name: str) -> None:
        """Take what an ``import`` of a top-level name means in this program, if it is the program's."""
        if name in self._known or name in sys.builtin_module_names:
            return
        self._known.add(name)
        try:
            spec = PathFinder.find_spec(name)
        except (ImportError, ValueError):
            return
        if spec is None:
            return
        if spec.origin:
            self.add_own(os.path.abspath(spec.origin))
        for directory in map(os.path.abspath, spec.submodule_search_locations or ()):
            if source.is_own(directory, self._root):
                self._add_directory(directory, set())

    def _add_directory(self, directory: str, above: set[str]) -> None:
        real = os.path.realpath(directory)
        if real in above:
            return  # a symbolic link to a directory that it lies in
        try:
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return
        for entry in found:
            if entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir():
                self._add_directory(entry.path, above | {real})
            else:
                self.add_own(entry.path)

    def follow(self) -> None:
        """Take what the files taken so far import, and so on."""
        while self._unread:
            for name in _imported(self._unread.pop()):
                self.add_module(name)

    def _too_large(self) -> ProgramTooLarge:
        largest = sorted(self.files, key=lambda path: -len(self.files[path]))[:3]
        sizes = ", ".join(
            f"{os.path.relpath(path, self._root)} {len(self.files[path]) / 1e6:.1f} MB" for path in largest
        )
        return ProgramTooLarge(
            f"The program's own source has more than {LIMIT >> 20} MB, which is what a host accepts. Largest: {sizes}.",
            "Keep data in files of another kind and hand it over as arguments; install large packages on every host.",
        )


_collectors: dict[str, _Collector] = {}


def _imported(data: bytes) -> Iterator[str]:
    """Top-level names that the import statements of a source file name, relative imports aside."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        names: list[Any] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        yield from (name.partition(".")[0] for name in names if isinstance(name, str) and not name.startswith("."))
