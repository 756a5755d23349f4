"""The source of a program: which files are its own, and how they are imported.

A program's own code is what lies in the directory of its main module, or below: the module itself, the modules and
packages beside it. The standard library and what is installed are not its own, even where a virtual environment lies in
that directory. Own modules differ from others in two ways. Their ``import multiprocessing`` may mean a place's
(``lab.program.standin``); and a host of a fleet gets them from the program (``lab.program.shipped``), not from its own disk.
"""

from __future__ import annotations

import importlib
import marshal
import os
import runpy
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from importlib.util import spec_from_file_location
from itertools import pairwise
from multiprocessing import process
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from lab import mainmodule, sharing
from lab.errors import ExitCode, LabError
from lab.program import standin
from lab.program.standin import StandIn

_CROSSHOST = str(Path(__file__).parents[2])
_INSTALLED = ("site-packages", "dist-packages")


@lru_cache(maxsize=1)
def _not_own() -> tuple[str, ...]:
    """Directories of code that is installed, wherever they lie."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")]
    paths += [os.path.join(_CROSSHOST, package) for package in ("lab", "worker", "producer")]
    return tuple({form for path in paths for form in (path, os.path.realpath(path))})


def warm_up() -> None:
    """Work out now, and once, what each process forked from here would work out for itself."""
    _not_own()


def is_own(path: str, root: str) -> bool:
    """Whether a file or directory is the program's own.

    Args:
        path: Absolute path.
        root: The directory of the program's main module.
    """
    if not _within(path, root) or any(_within(path, other) for other in _not_own()):
        return False
    return not any(part in _INSTALLED for part in os.path.relpath(path, root).split(os.sep))


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def root_of_main() -> str | None:
    """The directory of this program's main module, None if it has no file or is not the program's own."""
    main: Any = sys.modules.get("__main__")
    if mainmodule.is_session():
        return None
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.has_location:  # python -m package.module
        root = str(Path(os.path.abspath(spec.origin)).parents[spec.name.count(".")])
        return root if is_own(os.path.abspath(spec.origin), root) else None
    if not file:
        return None
    link, path = os.path.abspath(file), os.path.realpath(file)
    # a command that pip installed, such as pytest, is a script in a directory of scripts
    own = is_own(link, os.path.dirname(link)) and is_own(path, os.path.dirname(path))
    return os.path.dirname(path) if own else None


def root_of_session() -> str | None:
    """The directory that a session was started in, if it imports what lies there; else None."""
    root: str = os.path.abspath(process.ORIGINAL_DIR or os.curdir)  # type: ignore[attr-defined]
    return root if mainmodule.is_session() and "" in sys.path else None


class Own:
    """Importing a program's own modules.

    Args:
        root: The directory of its main module.
        files: Sources by absolute path, for a host that got them from the program; empty where they lie on the disk.
        stand_in: What their ``import multiprocessing`` means; None for the standard one.
        code: What some of them compile to, so, marshalled.

    Attributes:
        directories: The directories in which ``files`` lie, and all above them.
    """

    def __init__(
        self,
        root: str,
        files: Mapping[str, bytes] | None = None,
        stand_in: StandIn | None = None,
        code: Mapping[str, bytes] | None = None,
    ) -> None:
        self.root, self.files, self.stand_in, self.code = root, files or {}, stand_in, code or {}
        self.directories: set[str] = set()
        for path in self.files:
            while (path := os.path.dirname(path)) not in self.directories:
                self.directories.add(path)

    def install(self) -> None:
        """Let the import system find them; modules that are imported already stay as they are."""
        global _installed
        _installed = self
        _not_own()  # while our finder is not asked yet: working this out imports modules
        sys.path_hooks.insert(0, self.finder)
        for path in [path for path in sys.path_importer_cache if is_own(path, self.root)]:
            del sys.path_importer_cache[path]
        if self.stand_in is not None:
            self.stand_in.install()
            importlib.import_module = _import_module_for(self.stand_in)

    def has(self, directory: str) -> bool:
        """Whether there are files of the program in a directory."""
        return is_own(directory, self.root) and (directory in self.directories or os.path.isdir(directory))

    def has_module(self, name: str) -> bool:
        """Whether there is a module or package of a top-level name beside the main module, or is that."""
        base = os.path.join(self.root, name)
        there = self.files.__contains__ if self.files else os.path.isfile
        return there(base + ".py") or there(os.path.join(base, "__init__.py"))

    def finder(self, path: str) -> OwnFinder:
        """The finder for a directory of the program; a hook for ``sys.path_hooks``."""
        path = os.path.abspath(path)
        if not self.has(path):
            raise ImportError(f"{path} is not a directory of the program", path=path)
        return OwnFinder(self, path)

    def loader(self, name: str, path: str) -> OwnLoader:
        """The loader for one source file of the program."""
        return OwnLoader(self, name, path)

    def compiled(self, path: str, name: str) -> CodeType:
        """A source file as ``run_as_main`` runs it.

        Raises:
            SyntaxError, ValueError: What Python raises for such a file; OSError if it cannot be read.
        """
        return self.loader(name, path).get_code(name)

    def run_as_main(self, path: str, name: str, code: CodeType | None = None) -> ModuleType:
        """Run a source file as the main module, whose ``__name__`` is the one given.

        Args:
            path: The file.
            name: The name.
            code: What ``compiled`` has made of it, if it was asked to.

        Raises:
            Whatever the module raises, and ``compiled``.
        """
        loader, code = self.loader(name, path), code or self.compiled(path, name)
        return _run_as_main(
            code, name, __file__=path, __loader__=loader, __spec__=None, __package__=None, __cached__=None
        )

    def run_module_as_main(self, name: str) -> ModuleType:
        """Run a module as ``python -m`` does; a package, if that is what the name means, by its ``__main__``.

        Raises:
            NoSuchModule: There is none of this name that can be run.
            Whatever the module raises.
        """
        stdlib: Any = runpy
        try:
            _, spec, code = stdlib._get_module_details(name, stdlib._Error)
        except stdlib._Error:
            raise NoSuchModule(
                f"There is no module {name!r} that can be run.",
                "It is looked for from this folder on, and among what is installed: producer run -m package.module",
            ) from None
        if spec.origin:
            sys.argv[0] = spec.origin
        return _run_as_main(
            code, "__main__", __file__=spec.origin, __loader__=spec.loader, __spec__=spec, __package__=spec.parent,
            __cached__=spec.cached,
        )  # fmt: skip


class NoSuchModule(LabError):
    """There is no module of this name to run."""

    exit_code = ExitCode.USAGE


def _run_as_main(code: CodeType, name: str, **about: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(about, __builtins__=sys.modules["builtins"])
    if sys.version_info < (3, 14):  # from then on they are computed when they are asked for
        vars(module).update(__annotations__={})
    # under both names: what a child made of the main module's classes comes back as the second one's
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    exec(code, vars(module))  # noqa: S102 - the program itself
    return module


_installed: Own | None = None


def installed() -> Own | None:
    """How this process imports its program's modules; None if in the ordinary way."""
    return _installed


@contextmanager
def restored() -> Iterator[None]:
    """Put back what ``Own.install`` changes, and ``sys.path``: for who runs one program after the other in one process."""
    global _installed
    paths: Any = sys.path, sys.path_hooks, sys.meta_path
    kept, before = [list(path) for path in paths], (importlib.import_module, _installed, sharing.here())
    try:
        yield
    finally:
        for path, old in zip(paths, kept, strict=True):
            path[:] = old
        importlib.import_module, _installed, share = before
        sharing.enter(share)
        sys.path_importer_cache.clear()


def from_program(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without what is above the program's first frame: its frames of the lab and of ``runpy``."""
    packages = [os.path.join(_CROSSHOST, package, "") for package in ("lab", "worker", "producer")]
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(("<frozen runpy>", *packages)):
        tb = tb.tb_next
    return tb


def without_machinery(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of importing, which Python leaves out where they are its own."""
    shown: list[TracebackType] = []
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith((__file__, standin.__file__, "<frozen importlib")):
            shown.append(tb)
        tb = tb.tb_next
    for here, following in pairwise([*shown, None]):
        assert here is not None
        here.tb_next = following
    return shown[0] if shown else None


class OwnLoader(SourceFileLoader):
    """Loads a source file of the program, always from source: a ``.pyc`` beside it was compiled for another place."""

    def __init__(self, own: Own, name: str, path: str) -> None:
        super().__init__(name, path)
        self._own = own

    def get_data(self, path: str) -> bytes:
        """The bytes of a file of the program."""
        data = self._own.files.get(path)
        return super().get_data(path) if data is None else data

    def get_code(self, fullname: str) -> CodeType:
        """The compiled module."""
        path = self.get_filename(fullname)
        if (marshalled := self._own.code.get(path)) is not None:
            code: CodeType = marshal.loads(marshalled)  # noqa: S302 - of the very archive that the source is of
            return code
        data = self.get_data(path)
        if self._own.stand_in is not None:
            return self._own.stand_in.compile(data, path)
        return compile(data, path, "exec", dont_inherit=True)


class OwnFinder(FileFinder):
    """Finds modules in one directory of the program: among its files, else on the disk."""

    def __init__(self, own: Own, path: str) -> None:
        def make(name: str, file: str) -> OwnLoader:
            return own.loader(name, file)

        details: Any = [(ExtensionFileLoader, EXTENSION_SUFFIXES), (make, SOURCE_SUFFIXES)]
        super().__init__(path, *details)
        self._own = own

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module in this directory, None if it is not here."""
        base = os.path.join(self.path, fullname.rpartition(".")[2])
        for path, inside in ((os.path.join(base, "__init__.py"), [base]), (base + ".py", None)):
            if path in self._own.files:
                loader = self._own.loader(fullname, path)
                return spec_from_file_location(fullname, path, loader=loader, submodule_search_locations=inside)
        spec = super().find_spec(fullname, target)
        if (spec is None or spec.loader is None) and base in self._own.directories:
            spec = ModuleSpec(fullname, None, is_package=True)  # a portion of a namespace package
            spec.submodule_search_locations = [base]
        return spec


def _import_module_for(stand_in: StandIn) -> Any:
    """``importlib.import_module`` for which what there is a stand-in for is that, if the program's own code asks."""
    import_module = importlib.import_module

    def own_import_module(name: str, package: str | None = None) -> ModuleType:
        caller = sys._getframe(1).f_globals.get("__loader__")
        if stand_in.answers(name) and isinstance(caller, OwnLoader):
            name = stand_in.of(name)
        return import_module(name, package)

    return own_import_module
