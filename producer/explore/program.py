"""The program that is explored: a script, or a concept, run anew from its start as often as wanted."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import CodeType
from typing import Any

import lab
from lab.evidence import Result
from lab.explored.scheduler import Scheduler
from lab.explored.search import Outcome, outcome_of
from lab.program import source
from lab.program.standin import StandIn
from producer.names import BadName

SMALL: dict[str, dict[str, Any]] = {
    "counter": {"workers": 2, "times": 1, "trials": 1},
    "pipe": {"rounds": 2},
    "queue": {"workers": 2, "each": 2, "maxsize": 1, "count": 2},
}
"""The concepts that can be explored, with the sizes for it: an order more or less is a matter of a few steps."""


def imports_threading(source: bytes) -> bool:
    """Whether a script imports what makes threads.

    Raises:
        SyntaxError, ValueError: It is not Python.
    """
    if b"threading" not in source:
        return False
    tree = ast.parse(source)
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return any(name.partition(".")[0] in ("threading", "_thread", "asyncio", "concurrent") for name in names)


class Program:
    """What ``producer explore`` was given.

    Args:
        typed: Path of a script, or name of a concept.
        args: What a script finds in ``sys.argv[1:]``.

    Attributes:
        file: Its source.
        name: As it was typed.
        notes: What is different here from what its author may expect.

    Raises:
        BadName: There is no such thing.
    """

    def __init__(self, typed: str, args: tuple[str, ...] = ()) -> None:
        self.name, self.args = typed, args
        self.notes: list[str] = []
        self.run: Callable[[], Any]
        if typed.endswith(".py") or os.sep in typed:
            self.concept = ""
            self.file = os.path.abspath(typed)
            self._code: CodeType | None = None
            self._check()
            self.root = os.path.dirname(os.path.realpath(typed))
            self.run = self._run_script
        else:
            self.concept = typed
            self.file = self._find_concept(typed)
            self.root = os.path.dirname(self.file)
            self.run = self._run_concept

    def _check(self) -> None:
        try:
            Path(self.file).read_bytes()
        except OSError as exc:
            raise BadName(
                f"Cannot read {self.name!r}: {exc.strerror}.",
                "Type the path of a Python file, or the name of a concept.",
            ) from exc

    def _find_concept(self, typed: str) -> str:
        from lab.concepts import CONCEPTS

        if typed not in CONCEPTS:
            near = get_close_matches(typed, SMALL, n=1)
            raise BadName(
                f"There is no concept {typed!r}.",
                f"Did you mean {near[0]}?"
                if near
                else "For a script, type its path with .py; or see: producer concepts",
            )
        if typed not in SMALL:
            raise BadName(
                f"The concept {typed!r} cannot be explored: what it shows is not a matter of the order of operations, but of"
                " time, threads, memory or the end of a process.",
                f"Those that can be: {', '.join(SMALL)}",
            )
        import importlib

        return os.path.abspath(str(importlib.import_module(f"lab.concepts.{typed}").__file__))

    # Running

    def _run_concept(self) -> Any:
        from lab import concepts

        return concepts.load(self.concept)(lab.get_context("explored"), **SMALL[self.concept])

    def prepare(self) -> None:
        """Before the first run: what ``import multiprocessing`` means to a script from now on.

        Raises:
            BadName: It cannot be compiled.
        """
        if self.concept:
            return
        self._stand_in = StandIn("explored", lambda: lab.get_context("explored"))
        self._own = source.Own(self.root, stand_in=self._stand_in)
        try:
            self._code = self._own.compiled(self.file, "__main__")
        except (SyntaxError, ValueError) as exc:
            raise BadName(f"{self.name} is not Python: {exc}", f"See: python {self.name}") from exc
        if imports_threading(Path(self.file).read_bytes()):
            raise BadName(
                f"{self.name} imports threading, whose threads nobody orders here.",
                "The explored place orders the processes of multiprocessing. With multiprocessing's Process in place of"
                " Thread, and what is shared in a Value, the same program can be explored.",
            )
        self.notes += self._globals_assigned()
        self._own.install()
        if self.root not in sys.path:
            sys.path.insert(0, self.root)

    def _globals_assigned(self) -> list[str]:
        tree = ast.parse(Path(self.file).read_bytes())
        names = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        if not names:
            return []
        return [
            f"Note: functions assign the globals {', '.join(sorted(names))}. Here all processes share globals, and what is"
            " done to them is no step; real processes have globals of their own."
        ]

    def _run_script(self) -> None:
        kept = {name: sys.modules.get(name) for name in ("__main__", "__mp_main__")}
        argv = sys.argv[:]
        for name in [name for name, module in sys.modules.items() if self._is_own(name, module)]:
            del sys.modules[name]
        sys.argv[:] = [self.name, *self.args]
        self._stand_in.begin()
        try:
            self._own.run_as_main(self.file, "__main__", self._code)
        finally:
            sys.argv[:] = argv
            for name, module in kept.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module

    def _is_own(self, name: str, module: Any) -> bool:
        file = getattr(module, "__file__", None)
        if not file or name in ("__main__", "__mp_main__"):
            return False
        return source.is_own(os.path.abspath(str(file)), self.root)

    # Judging

    def judge(self, scheduler: Scheduler) -> Outcome:
        """How a run went; of a concept, by its claims."""
        outcome = outcome_of(scheduler)
        if not isinstance(scheduler.value, Result) or outcome.bad:
            return outcome
        failed = [check.claim for check in scheduler.value.checks if not check.held]
        if failed:
            return Outcome("claim", "; ".join(f"not so: {claim}" for claim in failed))
        return Outcome("result", f"all {len(scheduler.value.checks)} claims held")

    def sources(self) -> dict[str, str]:
        """Digests of its source files, as far as they have been imported, by their path from its directory."""
        files = {self.file}
        if not self.concept:
            own = [module for name, module in list(sys.modules.items()) if self._is_own(name, module)]
            files |= {os.path.abspath(str(module.__file__)) for module in own}
        return {os.path.relpath(file, self.root): digest(file) for file in sorted(files)}

    def short(self, file: str) -> str:
        """A file's name, for a line number; empty for the program's own."""
        return "" if file == self.file else os.path.basename(file)


def digest(file: str) -> str:
    """What changes when a file does."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
