"""A lesson's program, run as ``producer run`` runs a script, and what it printed."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer import script
from producer.learning.lesson import Value
from producer.progress import Progress
from producer.runs import Link, opened
from producer.session import Session

LIMIT = 120.0
"""Seconds after which a program that should have ended is ended: all of them bound what they wait for."""
ANSWER = re.compile(r"(?m)^([^:\n]+): (.+)$")
ENDS, WELL, IN_ERROR = "it ends", "well", "in an error"
"""What a lesson may ask of a program that does not come to print anything."""


@dataclass(frozen=True)
class Printed:
    """What came of a program in a place.

    Attributes:
        stdout: What it and its children printed.
        stderr: What they complained of.
        code: Its exit code; None when it had to be ended.
        seconds: How long it took, with the start of its interpreter.
        limit: How long it may take.
    """

    stdout: str
    stderr: str
    code: int | None
    seconds: float
    limit: float = LIMIT

    @property
    def answers(self) -> dict[str, Value]:
        """What it printed after each label, the last time, and how it ended."""
        printed = {label: value(text) for label, text in ANSWER.findall(self.stdout)}
        return {**printed, ENDS: WELL if self.code == 0 else IN_ERROR}

    def failure(self) -> str:
        """What went wrong with the program as such, in one line; empty when nothing did."""
        last = next(iter(self.stderr.strip().splitlines()[-1:]), "it said nothing on stderr")
        if self.code is None:
            return f"it had not ended after {self.limit:g} seconds, and was ended: {last}"
        return f"it ended with {self.code}: {last}" if self.code else ""


def value(text: str) -> Value:
    """A number, if the text is one, else the text."""
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    return int(number) if number.is_integer() else number


IN_EVERY_ORDER = "explored"
"""Stands for a place where a text quotes ``producer explore``."""


def explore(program: Path) -> Printed:
    """What ``producer explore`` says of a program; the same each time."""
    begun = time.perf_counter()
    command = [sys.executable, "-P", "-m", "producer", "explore", program.name]
    env = {**os.environ, "COLUMNS": "90", "NO_COLOR": "1"}
    with Session(command, env, program.parent) as session:
        session.wait(LIMIT)
    return Printed(session.out, session.err, session.code, time.perf_counter() - begun)


class Room:
    """Where lessons' programs run: each place, with the variables that lead to it.

    Args:
        environments: By place, the environment of a program there.
    """

    def __init__(self, environments: dict[str, dict[str, str]]) -> None:
        self._environments = environments

    def run(
        self, program: Path, place: str, args: Sequence[str] = (), trace: str = "", limit: float | None = None
    ) -> Printed:
        """Run a program in a place to its end, which comes within so many seconds.

        Args:
            program: The program.
            place: Where.
            args: What it finds in ``sys.argv[1:]``.
            trace: File for a trace; empty for none.
            limit: Seconds after which it is ended; None for ``LIMIT``.
        """
        limit = LIMIT if limit is None else limit
        command = script.command(str(program), place, list(args), trace)
        begun = time.perf_counter()
        with Session(command, self._environments[place]) as session:
            session.wait(limit)
        return Printed(session.out, session.err, session.code, time.perf_counter() - begun, limit)


@contextmanager
def room(places: list[str], progress: Progress, rtt: float = 0.0) -> Iterator[Room]:
    """The places, made ready; a fleet is started once for all programs, if there is none.

    Args:
        places: Their names.
        progress: Told what takes long.
        rtt: Seconds of network between the cluster's hosts and Redis.

    Raises:
        LabError: There is no fleet to connect to, and none could be started.
    """
    own = dict(os.environ)
    with opened(places, progress, rtt) as contexts:
        environments = dict.fromkeys(places, own)
        if "cluster" in contexts:
            ctx = contexts["cluster"]
            if rtt:
                Link.measure(ctx, rtt)
            environments["cluster"] = own | _leading_to(ctx)
        yield Room(environments)


def _leading_to(ctx: Any) -> dict[str, str]:
    """What an embedded fleet is reached by; a fleet that was configured, a program finds as this one did."""
    if not ctx.embedded:
        return {}
    settings = ctx.settings
    return {"CROSSHOST_BROKER_URL": settings.broker_url, "CROSSHOST_AUTHKEY": settings.authkey.decode(),
            "CROSSHOST_LEASE": str(settings.lease)}  # fmt: skip
