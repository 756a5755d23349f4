"""The places of a comparison: the three, and the two that only some Pythons have, or why there is none of them here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab
from lab import MORE_PLACES, PLACES
from lab.concepts import NOT_ON
from lab.errors import NotHere
from lab.evidence import Check, Result, Who
from producer.names import BadName

NAMES = ("python3.15t", "python3.14t", "python3.13t")
"""What a Python without the GIL is called where one is installed (PEP 703)."""

HINT = "Name one: producer compare gil --python PATH"

START = 20.0
"""Seconds that another Python may take to say what it is."""

BOUND = 600.0
"""Seconds that a concept may take in another Python; none takes one of them, and each gives up before."""

_WHAT = "import sys, sysconfig; print(sysconfig.get_config_var('Py_GIL_DISABLED') or 0, sys.version.split()[0])"


@dataclass(frozen=True)
class FreeThreaded:
    """Threads of another Python, which was built without the GIL; nothing has to be installed in it."""

    python: str
    place = "free-threaded"

    @classmethod
    def found(cls, python: str) -> FreeThreaded:
        """One that there is.

        Args:
            python: Its path; empty for the first that is on the PATH.

        Raises:
            NotHere: There is none, or this is none.
        """
        path = shutil.which(python) if python else next(filter(None, map(shutil.which, NAMES)), None)
        if path is None:
            none = f"there is no {python}" if python else f"none of {', '.join(NAMES)} is on the PATH"
            raise NotHere(f"free-threaded needs a Python without the GIL: {none}.", HINT)
        try:
            command = [path, "-I", "-c", _WHAT]
            said = subprocess.run(command, capture_output=True, text=True, timeout=START, check=True).stdout.split()
            free, version = said[0] == "1", said[1]
        except (OSError, subprocess.SubprocessError, IndexError) as exc:
            raise NotHere(f"{path} does not answer as a Python does: {exc}.", HINT) from exc
        if not free:
            raise NotHere(f"free-threaded needs a Python without the GIL, and {path} is {version} with it.", HINT)
        return cls(os.path.abspath(path))

    def run(self, concept: str) -> Result:
        """Run a concept there.

        Raises:
            RuntimeError: It broke off, or the GIL was on after the imports: what ran would not have been free of it.
        """
        with tempfile.TemporaryFile() as answer:
            command = [self.python, "-m", "lab.concepts.elsewhere", concept, str(answer.fileno())]
            root = str(Path(lab.__file__).parent.parent)
            done = subprocess.run(
                command, pass_fds=[answer.fileno()], cwd=root, timeout=BOUND, check=False, stdin=subprocess.DEVNULL
            )
            answer.seek(0)
            said = answer.read()
        if done.returncode or not said:
            raise RuntimeError(f"{self.python} broke off with exit code {done.returncode}; it told why on stderr")
        result = json.loads(said)
        if result.pop("gil"):
            raise RuntimeError(f"the GIL is on in {self.python} after the lab's imports: these would be plain threads")
        return _revived(result)


def _revived(said: dict[str, Any]) -> Result:
    """The evidence that came as JSON."""
    del said["ok"]
    result = Result(**said)
    result.place = FreeThreaded.place
    result.who = [Who(**who) for who in said["who"]]
    off = Check("the GIL is still off after the lab's imports", True)
    result.checks = [off, *(Check(**check) for check in said["checks"])]
    return result


@dataclass(frozen=True)
class Found:
    """Where a command runs its concepts.

    Attributes:
        names: The places, in order.
        python: The Python of ``free-threaded``, if that is one of them.
        missing: Those that nobody asked for by name and that there are not, each with the reason.
    """

    names: list[str]
    python: str = ""
    missing: dict[str, str] = field(default_factory=dict)


def found(typed: list[str], python: str, traced: bool = False) -> Found:
    """The places typed; all that there are, if none was.

    Args:
        typed: Their names.
        python: A Python without the GIL; empty for one that is on the PATH.
        traced: Whether what runs there is to be recorded.

    Raises:
        NotHere: One that was asked for by name is not to be had here.
    """
    if traced and (more := [place for place in typed if place in MORE_PLACES]):
        raise NotHere(f"Nothing records what is done on {more[0]}.", f"--trace and --report know {', '.join(PLACES)}.")
    names, missing = [], dict[str, str]()
    free = ""
    for place in typed or (PLACES if traced else [*PLACES, *MORE_PLACES]):
        try:
            if place == FreeThreaded.place:
                free = FreeThreaded.found(python).python
            elif place in MORE_PLACES:
                lab.get_context(place)
        except NotHere as exc:
            if typed or (python and place == FreeThreaded.place):
                raise
            missing[place] = exc.message
        else:
            names.append(place)
    return Found(names, free, missing)


def context(place: str, python: str) -> Any:
    """The context of a place; of ``free-threaded``, what stands for it."""
    return FreeThreaded(python) if place == FreeThreaded.place else lab.get_context(place)


def pairs(concepts: list[str], places: Iterable[str]) -> list[tuple[str, str]]:
    """Each concept with each place that can show it, the places of a concept next to each other.

    Raises:
        BadName: A concept cannot be shown in any of them.
    """
    places = list(places)
    for concept in concepts:
        why = [NOT_ON.get(place, {}).get(concept) for place in places]
        if all(why):
            raise BadName(f"{concept} cannot be shown on {', '.join(places)}: {why[0]}.", f"producer demo {concept}")
    return [(concept, place) for concept in concepts for place in places if concept not in NOT_ON.get(place, {})]


def left_out(concept: str, places: Iterable[str]) -> list[str]:
    """Why a concept is not shown in some of the places, a line each."""
    reasons = {place: NOT_ON.get(place, {}).get(concept) for place in places}
    return [f"not on {place}: {why}" for place, why in reasons.items() if why]
