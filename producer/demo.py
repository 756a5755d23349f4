"""Concepts one by one, as they happen."""

from __future__ import annotations

import lab
from producer import output, report
from producer.capture import STDERR, STDOUT, Capture, Relay
from producer.machine import Machine
from producer.places import Found, pairs
from producer.progress import Progress
from producer.recording import Recording
from producer.runs import Link, Run, captured, opened


def demo(concepts: list[str], places: Found, as_json: bool, rtt: float, recording: Recording) -> list[Run]:
    """Run every concept in every place; show each as it ends, or all of them as JSON at the end.

    Args:
        concepts: Names of the concepts.
        places: Where to run them.
        as_json: Whether to write JSON.
        rtt: Seconds of network to add between the fleet and Redis.
        recording: The traces, if any are wanted.
    """
    runs = (_as_json if as_json else _as_text)(concepts, places, rtt, recording)
    recording.write()
    return runs


def _as_text(concepts: list[str], places: Found, rtt: float, recording: Recording) -> list[Run]:
    """What children print goes straight to the terminal, between the title and the evidence."""
    runs = []
    with Relay() as relay, opened(places.names, Progress(relay.real), rtt, places.python) as contexts:
        if rtt:
            output.write_rich([*report.distance(Link.measure(contexts["cluster"], rtt)), ""])
        for concept, place in pairs(concepts, places.names):
            output.write_rich([report.title(f"{concept} on {place}")])
            runs.append(recording.run(concept, contexts[place]))
            relay.show()
            output.write_rich(report.evidence(runs[-1]))
    return runs


def _as_json(concepts: list[str], places: Found, rtt: float, recording: Recording) -> list[Run]:
    with Capture(STDOUT, STDERR) as capture, opened(places.names, Progress(None), rtt, places.python) as contexts:
        link = Link.measure(contexts["cluster"], rtt) if rtt else None
        todo = pairs(concepts, places.names)
        runs = [captured(recording.run(concept, contexts[place]), capture) for concept, place in todo]
        document = {
            "version": lab.__version__,
            "machine": vars(Machine.here()),
            **({"link": vars(link)} if link else {}),
            "ok": all(each.ok for each in runs),
            "runs": [each.to_json() for each in runs],
        }
        output.write_json(document, capture.real[STDOUT])
    return runs
