"""Running one concept in one place, and keeping what came of it, a crash included."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lab.errors import LabError
from lab.evidence import Result
from lab.fleet.hosts import kernel
from producer.capture import STDERR, STDOUT, Capture
from producer.places import FreeThreaded, context
from producer.progress import Progress


@dataclass
class Run:
    """One concept in one place.

    Attributes:
        result: The evidence; without checks when the program crashed.
        error: The exception in one line; empty when the program came to its end.
        traceback: The exception in full.
        exit_code: The code of one of the lab's own errors, else 0.
        stdout: What the program and its children printed, when it was captured.
        stderr: The same for stderr.
    """

    result: Result
    error: str = ""
    traceback: str = ""
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """Whether the program came to its end and all its claims held."""
        return not self.error and self.result.ok

    @property
    def name(self) -> str:
        """For messages: ``counter on threads``."""
        return f"{self.result.concept} on {self.result.place}"

    def failures(self) -> list[str]:
        """What did not go as claimed, one line each."""
        if self.error:
            return [self.error]
        if not self.result.checks:
            return ["the program checked nothing"]
        return [f"not so: {check.claim}" for check in self.result.checks if not check.held]

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON types."""
        own = {key: value for key, value in vars(self).items() if key != "result"}
        return {**self.result.to_json(), **own, "ok": self.ok}


@dataclass(frozen=True)
class Link:
    """What lies between the producer and its fleet.

    Attributes:
        transport: How Redis is reached.
        embedded: Whether the fleet was started for this command.
        round_trip: Median seconds of a PING to Redis, with what was added.
        hosts: The hosts of the fleet, as they describe themselves.
        rtt: Seconds of network that were added (``--rtt``).
        round_trip_before: Median seconds of a PING before that; the same if nothing was added.
        hosts_here: How many of the hosts run on this machine's kernel.
    """

    transport: str
    embedded: bool
    round_trip: float
    hosts: list[dict[str, Any]]
    rtt: float = 0.0
    round_trip_before: float = 0.0
    hosts_here: int = 0

    @classmethod
    def measure(cls, ctx: Any, rtt: float = 0.0) -> Link:
        """Measure the link of a connected cluster context, put it at a distance, if one is given, and measure again.

        Raises:
            BadSettings: There is nothing that could add a distance.
        """
        hosts = [asdict(host) for host in ctx.fleet()]
        before = after = ctx.round_trip()
        if rtt:
            ctx.go_away(rtt)
            after = ctx.round_trip()
        here = kernel()
        near = sum(bool(here) and host["kernel"] == here for host in hosts)
        return cls(ctx.transport, ctx.embedded, after, hosts, rtt, before, near)


@contextmanager
def opened(places: list[str], progress: Progress, rtt: float = 0.0, python: str = "") -> Iterator[dict[str, Any]]:
    """The contexts of the places, by name, the cluster's connected; closed at the end, whatever happens.

    Args:
        places: Their names.
        progress: Told what takes long.
        rtt: Seconds of network that will be added to the cluster, by ``Link.measure``.
        python: The Python of ``free-threaded``.

    Raises:
        LabError: There is no fleet to connect to, and none could be started.
    """
    with ExitStack() as stack:
        contexts = {}
        for place in places:
            contexts[place] = ctx = context(place, python)
            if place == "cluster":
                stack.callback(ctx.close)
                ctx.delay_line, ctx.tell = bool(rtt), False  # said here
                progress.say("cluster: connecting to the fleet, or starting one ...")
                ctx.connect()
        progress.clear()
        yield contexts


def run(concept: str, ctx: Any) -> Run:
    """Run a concept in a place. What it raises is part of the outcome; only Ctrl-C comes through."""
    from lab.concepts import load

    began = time.perf_counter()
    try:
        result = ctx.run(concept) if isinstance(ctx, FreeThreaded) else load(concept)(ctx)
        if not isinstance(result, Result):
            raise TypeError(f"run() of {concept} returned {result!r} instead of a Result")
        return Run(result)
    except Exception as exc:  # noqa: BLE001 - one broken program must not hide what the others show
        result = Result(concept, ctx.place, seconds=time.perf_counter() - began)
        error = "".join(traceback.format_exception_only(exc)).strip()
        code = exc.exit_code if isinstance(exc, LabError) else 0
        return Run(result, error, traceback.format_exc(), code)


def captured(outcome: Run, capture: Capture) -> Run:
    """The outcome of a run that has just ended, with what it and its children printed."""
    outcome.stdout, outcome.stderr = capture.take(STDOUT), capture.take(STDERR)
    return outcome
