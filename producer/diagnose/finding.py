"""What a diagnosis says: which confusion, at which line, in one sentence, and what to type next."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.explore.program import imports_threading

CONFUSIONS = {
    "main_guard": ("main_guard", "no main guard"),
    "lambda": ("main_guard", "a function that no other process can find"),
    "called_here": ("process", "the target is called here, not there"),
    "lock_each": ("lock", "one for each process, in place of one for all"),
    "unsendable": ("lock", "a lock or queue as the argument of a pool's call"),
    "daemon_lost": ("process", "nobody waits for a daemon, whose work is cut off"),
    "nested": ("get_inside", "processes started in a daemonic process"),
    "fork_threads": ("fork_threads", "a fork beside running threads"),
    "global": ("global", "a change that stays in the child"),
    "managed": ("managed", "a change to the copy that a proxy hands out"),
    "counter": ("counter", "an update that is not under one lock"),
    "random": ("random", "the same random numbers in several workers"),
    "two_locks": ("lock", "locks taken in two orders"),
    "condition": ("wake_up", "a wait that does not look again"),
    "join_first": ("join_first", "join before get"),
    "empty": ("empty", "a queue's momentary size decides"),
    "pipe_end": ("pipe", "an end that stays open, so the end of file never comes"),
    "vanish": ("vanish", "a result that nobody fetches, and its exception with it"),
    "callback": ("vanish", "a callback that raises"),
    "get_inside": ("get_inside", "a task that waits for its own pool"),
    "loss": ("loss", "a worker that ends in the middle of a call"),
    "one_by_one": ("pool", "a pool that is asked for one call after the other"),
    "slow_pool": ("slow_pool", "work smaller than the call"),
    "hangs": ("", "it does not end"),
}
"""The confusions by name: the lesson about it, and what it is."""


@dataclass(frozen=True)
class Finding:
    """A confusion of a script.

    Attributes:
        confusion: Its name, of ``CONFUSIONS``.
        line: Where; 0 where no line is known.
        says: One sentence.
        sure: Whether it is no guess.
        seen: ``read`` or ``run``.
    """

    confusion: str
    line: int
    says: str
    sure: bool = False
    seen: str = "read"

    @property
    def lesson(self) -> str:
        """The lesson about it; empty if there is none."""
        return CONFUSIONS[self.confusion][0]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return CONFUSIONS[self.confusion][1]

    def next(self, script: str) -> str:
        """What to type next. Excluded: to explore a script with threads, which nobody orders there."""
        if self.lesson:
            return f"producer learn {self.lesson}"
        return f'producer why "{self.title}"' if _has_threads(script) else f"producer explore {script}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "confusion": self.confusion,
            "title": self.title,
            "line": self.line,
            "says": self.says,
            "sure": self.sure,
            "seen": self.seen,
            "lesson": self.lesson or None,
        }


def _has_threads(script: str) -> bool:
    """Whether ``producer explore`` would refuse a script for its threads."""
    try:
        return imports_threading(Path(script).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False


def at(node: ast.AST) -> int:
    """The line of a node."""
    return getattr(node, "lineno", 0)


def found(confusion: str, node: ast.AST, says: str, sure: bool = False) -> Finding:
    """A finding at a node of the source."""
    return Finding(confusion, at(node), says, sure)


def seen(confusion: str, line: int, says: str) -> Finding:
    """A finding of a run, which is sure."""
    return Finding(confusion, line, says, True, "run")
