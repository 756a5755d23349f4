"""Spans of a job: one of who submits it, and one of each chunk, on whatever host, whose parent that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT

RECORDS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
out = open({file!r}, "a", buffering=1)
line = lambda span: span.to_json(indent=None) + "\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
trace.set_tracer_provider(provider)
"""


def test_a_job_and_its_chunks_are_one_trace(tmp_path: Path) -> None:
    """Every Python of the command, its workers' too, records into one file, as an agent has it."""
    file = tmp_path / "spans.jsonl"
    (tmp_path / "sitecustomize.py").write_text(RECORDS.format(file=str(file)))
    env = {name: value for name, value in os.environ.items() if not name.startswith("CROSSHOST_")}
    done = subprocess.run(
        [sys.executable, "-m", "producer", "submit", "primes", "--limit", "200000", "--wait"],
        env={**env, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=False, timeout=110, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spans = [json.loads(line) for line in file.read_text().splitlines()]
    (job,) = [span for span in spans if span["name"] == "job primes"]
    assert job["kind"] == "SpanKind.PRODUCER"
    chunks = [span for span in spans if span["kind"] == "SpanKind.CONSUMER"]
    assert len(chunks) >= 2
    known = {span["context"]["span_id"] for span in spans}
    for chunk in chunks:
        assert chunk["context"]["trace_id"] == job["context"]["trace_id"]
        assert chunk["parent_id"] in known
    assert job["context"]["span_id"] in {chunk["parent_id"] for chunk in chunks}
