"""What a check finds: fine, worth knowing, or wrong; what it is, why it matters, what to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError

FINE, NOTE, WRONG = "fine", "worth knowing", "wrong"
LEVELS = FINE, NOTE, WRONG


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: One of ``LEVELS``.
        what: What was found, with the numbers.
        why: Why it matters; empty if it is fine.
        do: What to type, or to do, line by line; empty if it is fine.
    """

    level: str
    what: str
    why: str = ""
    do: str = ""


Check = Callable[[Any], Iterator[Finding]]
"""A function that looks at one thing, and yields what it finds; nothing where the thing is none of this machine's."""


def fine(what: str) -> Finding:
    """It is as it should be."""
    return Finding(FINE, what)


def note(what: str, why: str, do: str) -> Finding:
    """All works, and somebody will wonder one day."""
    return Finding(NOTE, what, why, do)


def wrong(what: str, why: str, do: str) -> Finding:
    """Something that was asked for does not work, or will break."""
    return Finding(WRONG, what, why, do)


def of_error(error: LabError, why: str) -> Finding:
    """What one of the lab's own errors says."""
    return wrong(error.message, why, error.hint)


def all_of(checks: list[Check], subject: Any) -> Iterator[Finding]:
    """What some checks find, one after the other; one that breaks is named, and the others go on."""
    for check in checks:
        try:
            yield from check(subject)
        except LabError as exc:
            yield of_error(exc, "What comes after it could not be looked at.")
        except Exception as exc:  # noqa: BLE001 - a doctor that dies of what it looks at is of no use
            yield broken((check.__doc__ or check.__name__).partition("\n")[0].rstrip("."), exc)


def broken(what: str, exc: BaseException) -> Finding:
    """A check that did not come to its end: nobody knows."""
    said = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return note(f"Not known: {what}. The check ended with {said}", "It says neither that all is well nor that it is not.",
                "Look yourself; and tell those who make Crosshost.")  # fmt: skip
