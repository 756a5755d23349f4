"""Concepts one by one, as they happen."""

from __future__ import annotations

import lab
from producer import output, report
from producer.capture import STDERR, STDOUT, Capture, Relay
from producer.machine import Machine
from producer.progress import Progress
from producer.runs import Run, opened, run, run_captured


def demo(concepts: list[str], places: list[str], as_json: bool) -> list[Run]:
    """Run every concept in every place; show each as it ends, or all of them as JSON at the end."""
    return _as_json(concepts, places) if as_json else _as_text(concepts, places)


def _as_text(concepts: list[str], places: list[str]) -> list[Run]:
    """What children print goes straight to the terminal, between the title and the evidence."""
    runs = []
    with Relay() as relay, opened(places, Progress(relay.real)) as contexts:
        for concept in concepts:
            for ctx in contexts.values():
                output.write_rich([report.title(f"{concept} on {ctx.place}")])
                runs.append(run(concept, ctx))
                relay.show()
                output.write_rich(report.evidence(runs[-1]))
    return runs


def _as_json(concepts: list[str], places: list[str]) -> list[Run]:
    with Capture(STDOUT, STDERR) as capture, opened(places, Progress(None)) as contexts:
        runs = [run_captured(concept, ctx, capture) for concept in concepts for ctx in contexts.values()]
        document = {
            "version": lab.__version__,
            "machine": vars(Machine.here()),
            "ok": all(each.ok for each in runs),
            "runs": [each.to_json() for each in runs],
        }
        output.write_json(document, capture.real[STDOUT])
    return runs
