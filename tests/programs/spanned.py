"""Calls with spans of OpenTelemetry: prints as JSON those of the program and those of its worker."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

EXPORTER = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(EXPORTER))


def square(n):
    with trace.get_tracer("program").start_as_current_span("inside"):
        return n * n


def fail(n):
    raise ValueError(n)


def told():
    """The spans of this process that have ended."""
    return [
        {
            "name": span.name,
            "kind": span.kind.name,
            "trace": span.context.trace_id,
            "id": span.context.span_id,
            "parent": span.parent and span.parent.span_id,
            "status": span.status.status_code.name,
            "events": [[event.name, event.attributes.get("exception.type")] for event in span.events],
        }
        for span in EXPORTER.get_finished_spans()
    ]


def main():
    with trace.get_tracer("program").start_as_current_span("request"):
        pool = multiprocessing.Pool(1)
        pool.apply(square, [2])
        pool.map(square, [3, 4])
        list(pool.imap(square, [5]))
        pool.apply_async(fail, [6]).wait()
        theirs = pool.apply(told)
        pool.close()
        pool.join()
        with ProcessPoolExecutor(1) as executor:
            executor.submit(square, 7).result()
            list(executor.map(square, [8, 9], chunksize=2))
            executor.submit(fail, 0).exception()
            theirs += executor.submit(told).result()
    print(json.dumps({"ours": told(), "theirs": theirs}))


if __name__ == "__main__":
    main()
