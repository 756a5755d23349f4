"""The files that a command was asked for, once all has run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import lab
from lab.trace import file, measure
from lab.trace.events import Trace
from producer.html import page
from producer.machine import Machine

if TYPE_CHECKING:
    from producer.comparison import Comparison


def write(trace: str, report: str, traces: list[Trace], comparison: Comparison | None = None, told: str = "") -> None:
    """Write a trace and a report, and say so on stderr.

    Args:
        trace: File for the trace; empty for none.
        report: File for the report; empty for none.
        traces: Of each run.
        comparison: What was measured without a trace, for the report.
        told: How the command ended, for the report.
    """
    found = whole(traces)
    if trace:
        file.write(found, trace)
        print(f"trace: {len(found.events):,} events in {trace}{_conditions(found)}", file=sys.stderr)
    if report:
        page.write(report, found, comparison, told)
        print(f"report: {report}{'' if trace else _conditions(found)}", file=sys.stderr)


def whole(traces: list[Trace]) -> Trace:
    """The traces of a command as one, with what it ran on."""
    trace = file.joined(traces)
    trace.about = {"version": lab.__version__, "machine": vars(Machine.here())}
    costs = [run["cost"] for run in trace.runs if "cost" in run]
    if costs:
        trace.about["cost"] = {name: max(cost[name] for cost in costs) for name in costs[0]}
    return trace


def _conditions(trace: Trace) -> str:
    told = f"; {measure.told(trace.about['cost'])}" if "cost" in trace.about else ""
    error = max((run.get("clock error", 0) for run in trace.runs), default=0)
    return told + (f"; the clocks of its hosts agree within {error / 1e3:.0f} us" if error else "")
