"""The program's own source, as its processes on other hosts get it.

``spawn`` starts a child by running the main module's file again, so it needs the file. A host has none of the program's
files. It gets this instead: the main module, and the modules and packages beside it which import statements name or
which are imported by now, as one archive. A process is sent with the archive's SHA-256 in its sealed head; a host
fetches the archive once, opens it, verifies its sum, and keeps it in memory: source is written to no disk. The
child imports from the archive, and runs the main module as spawn's children do, under the name ``__mp_main__``. What the
program had imported when it was sent goes along as byte code, too: to compile a file of a thousand lines takes as long as
to start a process, and each process would do it again.

A host takes no more than a program may have (``LIMIT``, ``FILES``): not from Redis, and not out of an archive, whatever
that says of itself. Who made it holds the fleet's key, and need not be careful with it.

Only ``.py`` files go along, and the data files that whoever starts the program has named (``lab.program.along``). Other data
stays where it is: hand it over as arguments.

On Redis: hash ``program:SHA256`` of the run, field ``archive``: the sealed archive, made by the run's root.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import marshal
import os
import struct
import sys
import threading
import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from importlib.util import MAGIC_NUMBER
from itertools import accumulate
from typing import Any

from lab import mainmodule
from lab.errors import CannotLoad, LabError, ProgramTooLarge, WrongKey
from lab.program import along, locked, source, standin
from lab.store.run import Run
from lab.store.script import Script

LIMIT = 32 << 20
"""Bytes of source that a program may have: what an archive weighs in Redis, and in the memory of every host, at most."""

FILES = 10_000
"""Source files that a program may have."""

ABOUT = 4 << 20
"""Bytes of an archive's first entry, which has the paths."""

PACKED = LIMIT + ABOUT + 256 * FILES
"""Bytes of a sealed archive at most: of files that cannot be compressed, and what a zip has for each of them."""

MAGIC = MAGIC_NUMBER.hex()
"""Names what byte code this version of Python has."""

_END = struct.Struct("<4s 8x L 4x H")
"""The end of a zip file, as far as it matters here: signature, size of the list of its entries, size of a comment."""

_ENTRY = 46 + len(str(FILES))
"""Bytes of one entry in that list."""

FETCH = Script(
    """
local size = redis.call('HSTRLEN', KEYS[3], 'archive')
if size > tonumber(ARGV[3]) then return size end
return redis.call('HGET', KEYS[3], 'archive')
""",
    numbered=False,
)  # excluded, as this is one step: another archive between a look at the size and the reading

PUBLISH = Script("redis.call('HSET', KEYS[3], 'archive', ARGV[3]) create(KEYS[3]) return 1", fenced=True)


class Files(Mapping[str, bytes]):
    """The files in an archive by their paths, each unpacked when it is asked for: a process imports few of many.

    Raises:
        CannotLoad: When one is asked for that is not what ``Program.pack`` makes.
    """

    def __init__(self, entries: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo]) -> None:
        self._entries, self._infos = entries, infos

    def but(self, paths: Container[str]) -> Files:
        """All but these."""
        return Files(self._entries, {path: info for path, info in self._infos.items() if path not in paths})

    def __getitem__(self, path: str) -> bytes:
        info = self._infos[path]
        with _readable():
            return _content(self._entries, info, LIMIT)

    def __contains__(self, path: object) -> bool:
        return path in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


@dataclass(frozen=True)
class Program:
    """The source of a program.

    Attributes:
        root: Directory of its main module.
        main: Path of the main module's file; empty if it is imported by its name, as under ``python -m``, or is none.
        substituted: Whether its ``import multiprocessing`` means the cluster's (``lab.program.standin``).
        files: Sources by absolute path, and data.
        data: Which of them are data, each with what tells whether another file is the very same (``lab.program.along``).
        packages: Digest of the packages that it goes with (``lab.program.locked``); empty for none.
        code: Of some of its files, what they compile to in this version of Python, marshalled.
    """

    root: str
    main: str
    substituted: bool
    files: Mapping[str, bytes]
    data: dict[str, list[int]] = field(default_factory=dict)
    packages: str = ""
    code: dict[str, bytes] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The program as an archive; the same program makes the same bytes.

        Raises:
            ProgramTooLarge: The names of its files have more than ``ABOUT`` bytes.
        """
        buffer = io.BytesIO()
        paths = sorted(self.files)
        about = {"root": self.root, "main": self.main, "substituted": self.substituted, "paths": paths}
        about |= {"data": self.data} if self.data else {}
        about |= {"packages": self.packages} if self.packages else {}
        about |= {"magic": MAGIC, "code": [[path, len(code)] for path, code in self.code.items()]} if self.code else {}
        with zipfile.ZipFile(buffer, "w") as archive:
            entries = [json.dumps(about).encode(), *(self.files[path] for path in paths)]
            entries += [b"".join(self.code.values())] if self.code else []
            if len(entries[0]) > ABOUT:
                raise _too_large(f"{ABOUT >> 20} MB of file names")
            for number, data in enumerate(entries):  # by number: a path need not be text that a zip can name
                archive.writestr(zipfile.ZipInfo(str(number)), data, zipfile.ZIP_DEFLATED, compresslevel=1)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, archive: bytes) -> Program:
        """The program in an archive that opened; each of its files is unpacked when it is asked for.

        Raises:
            ProgramTooLarge: It holds more than ``LIMIT`` bytes or ``FILES`` files, or says that it does.
            CannotLoad: It is not what ``pack`` makes; of a file, when that is asked for.
        """
        with _readable():
            _check_end(archive)
            entries = zipfile.ZipFile(io.BytesIO(archive))
            infos = entries.infolist()
            if [info.filename for info in infos] != [str(number) for number in range(len(infos))]:
                raise ValueError("its entries are not numbered from 0")
            if sum(info.file_size for info in infos[1:]) > LIMIT:
                raise _too_large(f"{LIMIT >> 20} MB of source")
            if any(info.compress_type != zipfile.ZIP_DEFLATED for info in infos):  # others are not unpacked bit by bit
                raise ValueError("entries are compressed in another way")
            about = json.loads(_content(entries, infos.pop(0), ABOUT))
            code = _apart(_content(entries, infos.pop(), LIMIT), about["code"]) if "code" in about else {}
            about["code"] = code if about.pop("magic", MAGIC) == MAGIC else {}
            return cls(**about | {"files": Files(entries, dict(zip(about.pop("paths"), infos, strict=True)))})

    def install(self, digest: str, ctx: Any) -> source.Own:
        """Import from this program from now on; what this process starts in turn gets the same one.

        Args:
            digest: The SHA-256 of its archive, hex.
            ctx: What its ``import multiprocessing`` means, if that is not the stdlib's.
        """
        global _inherited
        _inherited = digest
        stand_in = standin.StandIn(ctx.place, lambda: ctx) if self.substituted else None
        own = self.importable(stand_in)
        own.install()
        return own

    def importable(self, stand_in: standin.StandIn | None) -> source.Own:
        """Its source, as this process is to import it."""
        files = self.files
        if self.data:
            files = (
                files.but(self.data) if isinstance(files, Files) else {p: files[p] for p in files.keys() - self.data}
            )
        return source.Own(self.root, files, stand_in, self.code)

    def compiled(self) -> Iterator[tuple[str, bytes]]:
        """The byte code of what this process has imported of it, by path."""
        own = self.importable(standin.StandIn("cluster", lambda: None) if self.substituted else None)
        for file in sorted({str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}):
            if file in own.files:
                # what cannot be compiled, or marshalled so, a process compiles for itself, or tells why not
                with suppress(Exception):  # as version 2: from 3 on, the bytes tell how often an object was referred to
                    yield file, marshal.dumps(own.loader("", file).get_code(""), 2)


_inherited: str | None = None
_adopted: Program | None = None
_published: dict[str, Any] = {}
_code: dict[str, bytes] | None = None
"""What was compiled at the first publication; what is imported later changes nothing in it, nor in the archive's sum."""
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
            digest = None if program is None else _publish(run, _with_code(program).pack())
            _published.update(state=state, digest=digest)
        found: str | None = _published["digest"]
        return found


def _with_code(program: Program) -> Program:
    global _code
    if _code is None:
        _code = dict(program.compiled())
    room = LIMIT - sum(map(len, program.files.values()))
    return replace(program, code=_code if sum(map(len, _code.values())) <= room else {})


def _apart(code: bytes, sizes: list[tuple[str, int]]) -> dict[str, bytes]:
    """Byte code by its path."""
    ends = list(accumulate(size for _, size in sizes))
    return {path: code[end - size : end] for (path, size), end in zip(sizes, ends, strict=True)}


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
        WrongKey: It is not there, or too large, or does not open, or is another one.
    """
    key = run.key("program", digest)
    blob = run.eval(FETCH, [key], PACKED)
    if blob is None:
        raise WrongKey("The source of the program is not in Redis; the process that needs it is not run.")
    if isinstance(blob, int):
        raise WrongKey(
            f"The source of the program has {blob} bytes, and at most {PACKED} are read; it was refused unread."
        )
    archive = bytes(run.unseal(key, blob))
    if hashlib.sha256(archive).hexdigest() != digest:
        raise WrongKey(
            "The source of the program is not the one that its process was sent with; it was refused unread."
        )
    return archive


def collect() -> Program | None:
    """The source of this program; None if there is none: its main module is not a file of its own, with nothing beside it.

    A session has no main module that could be sent, as what it defines travels by value; but what it has imported.

    What was read once is not read again: an edit made while the program runs does not divide its processes.
    """
    if _adopted is not None:
        return _adopted
    installed = source.installed()
    root = (source.root_of_main() or source.root_of_session()) if installed is None else installed.root
    if root is None:
        return None
    main: Any = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    collector = _collectors.setdefault(root, Collector(root))
    if mainmodule.is_session():
        path = ""
    elif spec is None:
        path = os.path.abspath(main.__file__)
        collector.add(path)
    else:
        path = ""
        collector.add_module(spec.name.partition(".")[0])
    for module in list(sys.modules.values()):
        if isinstance(file := getattr(module, "__file__", None), str):
            collector.add_own(os.path.abspath(file))
    collector.follow()
    if not collector.files and installed is None:
        return None
    return collector.program(path, installed is not None and installed.stand_in is not None)


def gather(root: str, path: str = "", text: bytes | None = None, module: str = "") -> Program:
    """The source of a program that is to run elsewhere, and the data taken along: read, and nothing of it executed.

    Args:
        root: Directory of its main module.
        path: The main module's file; empty if it is imported by its name.
        text: What the main module says, if that is in no file; ``path`` is what Python calls it then.
        module: The main module's name, if it has one.

    Raises:
        ProgramTooLarge: It has more than ``LIMIT`` bytes or ``FILES`` files.
    """
    collector = Collector(root)
    sys.path.insert(0, root)
    try:
        if text is not None:
            collector.take(path, text)
        elif path:
            collector.add(path)
        if module:
            collector.add_module(module.partition(".")[0])
        collector.follow()
    finally:
        sys.path.remove(root)
    return collector.program("" if text is not None else path, True)


def adopt(program: Program) -> None:
    """Have this process, the root of a program that was sent, send the same source to the processes that it starts."""
    global _adopted
    _adopted = program


class Collector:
    """Gathers the program's files, from those it is given to those that their import statements name.

    A package is taken as a whole, as what it imports of itself may be named at run time. Whatever cannot be read or
    parsed is for Python to complain about, when it is imported.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.files: dict[str, bytes] = {}
        self.size = 0
        self._unread: list[bytes] = []
        self._known: set[str] = set()

    def begin(self, main: str | bytes) -> None:
        """Take a main module: a file, a module by its name, or a source that no file has, which is only followed."""
        if isinstance(main, bytes):
            self._unread.append(main)
        elif main.endswith(".py") or os.sep in main:
            self.add(os.path.abspath(main))
        else:
            self.add_module(main.partition(".")[0])

    def add(self, path: str) -> None:
        """Take one source file."""
        if path in self.files or not os.path.isfile(path):  # nor a pipe, which would be waited for
            return
        try:
            with open(path, "rb") as file:
                data = file.read(LIMIT + 1)
        except OSError:
            return
        self.take(path, data)

    def take(self, path: str, data: bytes) -> None:
        """Take one source file, of which this is known already."""
        self.files[path] = data
        self._unread.append(data)
        self.size += len(data)
        if self.size > LIMIT:
            raise self._too_large()
        if len(self.files) > FILES:
            raise _too_large(f"{FILES} files of source")

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

    def program(self, main: str, substituted: bool) -> Program:
        """What was gathered, and the data that is to travel with it (``lab.program.along``).

        Args:
            main: As of a ``Program``.
            substituted: Likewise.

        Raises:
            ProgramTooLarge: Together they have more than ``LIMIT`` bytes or ``FILES`` files.
        """
        data, marks = along.taken()
        if sum(map(len, data.values())) + self.size > LIMIT:
            raise _too_large(f"{LIMIT >> 20} MB together with what is to travel with it")
        files, marks = data | self.files, {path: mark for path, mark in marks.items() if path not in self.files}
        if len(files) > FILES:
            raise _too_large(f"{FILES} files, with those that are to travel with it")
        return Program(self._root, main, substituted, files, marks, locked.wanted())

    def _too_large(self) -> ProgramTooLarge:
        largest = sorted(self.files, key=lambda path: -len(self.files[path]))[:3]
        sizes = ", ".join(
            f"{os.path.relpath(path, self._root)} {len(self.files[path]) / 1e6:.1f} MB" for path in largest
        )
        return _too_large(f"{LIMIT >> 20} MB", f" Largest: {sizes}.")


_collectors: dict[str, Collector] = {}


def _too_large(than: str, largest: str = "") -> ProgramTooLarge:
    return ProgramTooLarge(
        f"The program's own source has more than {than}, which is what a host accepts.{largest}",
        "Keep data in files of another kind and hand it over as arguments; install large packages on every host.",
    )


def _check_end(archive: bytes) -> None:
    """Look at the size of the list of entries. Excluded: ``zipfile`` reading one that is all of the archive, at once."""
    signature, size, comment = _END.unpack(archive[-_END.size :])
    larger_zip = archive[-_END.size - 20 :][:4] == b"PK\x06\x07"  # whose list is told of elsewhere
    if signature != b"PK\x05\x06" or comment or larger_zip:
        raise ValueError("it does not end as ours do")
    if size > (FILES + 2) * _ENTRY:
        raise _too_large(f"{FILES} files of source")


@contextmanager
def _readable() -> Iterator[None]:
    """Have one error for whatever zipfile and json make of what is no archive of ours."""
    try:
        yield
    except LabError:
        raise
    except Exception as exc:
        raise CannotLoad(f"The archive with the program's source cannot be read: {exc}", "Start it anew.") from exc


def _content(entries: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """What an entry holds: no more than it says, and no more than ``most``, whatever its compressed bytes would make."""
    if info.file_size > most:
        raise _too_large(f"{most >> 20} MB in one file")
    with entries.open(info) as entry:
        data = entry.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ValueError(f"entry {info.filename} has {len(data)} bytes and not the {info.file_size} that it says")
    return data


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
