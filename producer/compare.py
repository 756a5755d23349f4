"""All concepts in all places, one after the other, and the evidence of it."""

from __future__ import annotations

import time
from pathlib import Path

from lab import PLACES
from producer import output, report
from producer.capture import STDERR, STDOUT, Capture
from producer.comparison import Comparison
from producer.machine import load
from producer.places import Found, pairs
from producer.progress import Progress
from producer.recording import Recording
from producer.runs import Link, Run, captured, opened, run


def compare(
    concepts: list[str], places: Found, json_file: str | None, quiet: bool, rtt: float, recording: Recording
) -> list[Run]:
    """Measure, then write the report to stdout and the evidence to a file, or the evidence alone to stdout.

    Args:
        concepts: Names of the concepts.
        places: Where to run them.
        json_file: Path for the evidence; ``-`` is stdout, None is nowhere.
        quiet: No progress.
        rtt: Seconds of network to add between the fleet and Redis.
        recording: The traces, if any are wanted.

    Returns:
        The runs, for the exit code.
    """
    with Capture(STDOUT, STDERR) as capture:
        progress = Progress(None if quiet else capture.real[STDERR])
        try:
            comparison = measure(concepts, places, capture, progress, rtt, recording)
        finally:
            progress.clear()
    recording.write(comparison)
    if json_file == "-":
        output.write_json(comparison.to_json())
        return comparison.runs
    output.write_rich(report.comparison(comparison))
    if json_file:
        with output.written(json_file), Path(json_file).open("w", encoding="utf-8") as file:
            output.write_json(comparison.to_json(), file)
    return comparison.runs


def measure(
    concepts: list[str], places: Found, capture: Capture, progress: Progress, rtt: float, recording: Recording
) -> Comparison:
    """Run every concept in every place.

    The places of one concept run next to each other, so that a machine whose speed drifts treats them alike. If traces are
    wanted, everything runs once more for them.

    Raises:
        LabError: There is no fleet to connect to; found out before anything runs.
    """
    found = Comparison(concepts, places.names, places.missing)
    todo = pairs(concepts, places.names)
    began = time.perf_counter()
    with opened(places.names, progress, rtt, places.python) as contexts:
        if "cluster" in contexts:
            found.link = Link.measure(contexts["cluster"], rtt)
        for done, (concept, place) in enumerate(todo, 1):
            progress.say(f"[{done}/{len(todo)}] {concept} on {place}")
            found.runs.append(captured(run(concept, contexts[place]), capture))
        found.seconds, found.load_after = time.perf_counter() - began, load()
        for concept, place in todo if recording else ():  # when all is measured: no measurement has a trace in it
            if place in PLACES:  # nothing records what is done in the others
                progress.say(f"tracing {concept} on {place}")
                captured(recording.run(concept, contexts[place]), capture)
    return found
