"""A trace as it lies on the disk: lines of JSON, of which the first says of what, and each other one is an event."""

from __future__ import annotations

import json
from pathlib import Path

from lab.errors import ExitCode, LabError
from lab.trace.events import Event, Trace

FORMAT = "crosshost trace"
VERSION = 1


class NoTrace(LabError, ValueError):
    """A file is no trace, or cannot be read."""

    exit_code = ExitCode.USAGE


def write(trace: Trace, path: str | Path) -> None:
    """Write a trace."""
    with open(path, "w", encoding="utf-8") as file:
        header = {"format": FORMAT, "schema": VERSION, **trace.about, "runs": trace.runs, "events": len(trace.events)}
        file.write(json.dumps(header) + "\n")
        for event in trace.events:
            file.write(json.dumps(event.to_json(), separators=(",", ":"), default=str) + "\n")


def read(path: str | Path) -> Trace:
    """Read one.

    Raises:
        NoTrace: It is none; the message has the first line that is not as it should be.
    """
    number = 0
    try:
        with open(path, encoding="utf-8") as file:
            header = json.loads(file.readline() or "null")
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise NoTrace(
                    f"{str(path)!r} is no trace of Crosshost.", "Make one: producer demo counter --trace FILE"
                )
            if header.get("schema") != VERSION:
                raise NoTrace(
                    f"{str(path)!r} has schema {header.get('schema')}; this is {VERSION}.", "Record it again."
                )
            events = []
            for number, line in enumerate(file, 2):  # noqa: B007 - for the message below
                events.append(Event.from_json(json.loads(line)))
    except OSError as exc:
        raise NoTrace(f"Cannot read {str(path)!r}: {exc.strerror}.", "Type the path of a trace.") from exc
    except (KeyError, TypeError, ValueError) as exc:
        if isinstance(exc, NoTrace):
            raise
        raise NoTrace(
            f"{str(path)!r}, line {number or 1}, is not as it should be: {exc!r}.", "Record it again."
        ) from exc
    if (whole := header.get("events", len(events))) != len(events):
        raise NoTrace(f"{str(path)!r} has {len(events)} of {whole} events: it was cut.", "Record it again.")
    runs = header.pop("runs", [])
    about = {name: value for name, value in header.items() if name not in ("format", "schema", "events")}
    return Trace(runs, events, about)


def joined(traces: list[Trace]) -> Trace:
    """Several traces as one, their runs one after the other."""
    whole = Trace(about=traces[0].about if traces else {})
    for trace in traces:
        for event in trace.events:
            event.run += len(whole.runs)
        whole.runs += trace.runs
        whole.events += trace.events
    return whole
