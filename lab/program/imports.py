"""What a program imports that is neither its own nor Python's: found in its source, before it runs.

What it can do without is left out: an import in a ``try`` that expects it to fail, and one for type checkers alone.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder

from lab.errors import ProgramTooLarge
from lab.program import shipped, source

EXPECTED = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
OURS = {"lab", "worker", "producer", "onloan"}
"""What every host has, and in the same version: that is looked at when a program connects."""


def foreign(root: str, main: str | bytes) -> set[str]:
    """The top-level modules of others that a program imports, as far as they are installed here.

    Args:
        root: The directory of the main module.
        main: The main module's file; its name, if it is run by that; or its source, if it has no file.
    """
    with _beginning_with(root):
        return {name for name in _named(root, main) if _of_others(name, root)}


def lacking(root: str, main: str | bytes) -> set[str]:
    """The top-level modules that a program imports, and that are neither its own nor installed here; likewise."""
    with _beginning_with(root):
        return {name for name in _named(root, main) if _found(name) is None}


def _named(root: str, main: str | bytes) -> set[str]:
    collector = shipped.Collector(root)
    with suppress(ProgramTooLarge):  # it is said when the program is sent
        collector.begin(main)
        collector.follow()
    sources = [*collector.files.values(), *([main] if isinstance(main, bytes) else [])]
    return {name for data in sources for name in needed(data)} - sys.stdlib_module_names - OURS


@contextmanager
def _beginning_with(root: str) -> Iterator[None]:
    """``sys.path`` as the program will have it."""
    before = sys.path[:]
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path[:] = before


def _of_others(name: str, root: str) -> bool:
    """Whether a module is installed here."""
    if (spec := _found(name)) is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return not any(source.is_own(os.path.abspath(place), root) for place in places)


def _found(name: str) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(name)
    except (ImportError, ValueError):
        return None


def needed(data: bytes) -> Iterator[str]:
    """Top-level names that a source file cannot do without."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    left: list[ast.AST] = [tree]
    while left:
        here = left.pop()
        if isinstance(here, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in here.names)
        elif isinstance(here, ast.ImportFrom) and not here.level and here.module:
            yield here.module.partition(".")[0]
        elif isinstance(here, ast.Try) and any(map(_expects, here.handlers)):
            left += [*here.finalbody]  # and what it does instead, if it can do with either
        elif isinstance(here, ast.If) and _for_type_checkers(here.test):
            left += here.orelse
        else:
            left += ast.iter_child_nodes(here)


def _expects(handler: ast.ExceptHandler) -> bool:
    """Whether it is for an import that fails."""
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(getattr(kind, "id", "") in EXPECTED for kind in kinds)


def _for_type_checkers(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"
