"""A chunk of a mapped file, on the side of the worker: read each item, call the function, write its result as JSON.

Items arrive as they stand in the file and leave as JSON text. So reading and writing cost the workers' time, not the
producer's, and a result that cannot be sent is the failure of its own item and nobody else's.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lab.errors import ExitCode, LabError
from lab.evidence import Who
from lab.mapping.timelimit import Late, limit
from lab.program.target import Target

Kind = Literal["input", "call", "result", "timeout", "lost"]
Payload = bytes | list[str]
"""An item as it travels: a line of the file without its end, or the fields of a row of CSV."""


class TargetMissing(LabError, ImportError):
    """A worker cannot find the function."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Failure:
    """Why an item has no result.

    Attributes:
        kind: What failed: reading the item, the call, writing its result, the time allowed, the worker.
        error: The exception in one line.
        traceback: The exception in full, from the function on; empty where there is none.
    """

    kind: Kind
    error: str
    traceback: str = ""


Outcome = bytes | Failure
"""The result of an item as JSON in UTF-8, or why it has none."""


@dataclass(frozen=True)
class Answer:
    """What came of a chunk.

    Attributes:
        who: The worker.
        seconds: What all its items took.
        outcomes: One for each item, in their order.
    """

    who: Who
    seconds: float
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Job:
    """What is the same for all chunks of a map.

    Attributes:
        target: The function.
        format: What an item is: ``lines`` (text), ``jsonl`` (a JSON value), ``csv`` (a dict by the header).
        header: Names of the columns, for CSV.
        timeout: Seconds allowed for one item, or None (``lab.mapping.timelimit`` says how it is kept).
    """

    target: Target
    format: str
    header: tuple[str, ...] = ()
    timeout: float | None = None

    def run(self, payloads: Sequence[Payload]) -> Answer:
        """Do the items one after the other.

        Raises:
            TargetMissing: The function is not here.
        """
        function, outcomes, begun = self._function(), [], time.perf_counter()
        for payload in payloads:
            outcomes.append(self._one(function, payload))
        return Answer(Who.here(), time.perf_counter() - begun, outcomes)

    def parse(self, payload: Payload) -> Any:
        """The item that the function gets.

        Raises:
            ValueError: It is not what the format says.
        """
        if isinstance(payload, list):
            if len(payload) != len(self.header):
                raise ValueError(f"the row has {len(payload)} fields, the header {len(self.header)}")
            return dict(zip(self.header, payload, strict=True))
        text = payload.decode()
        return json.loads(text) if self.format == "jsonl" else text

    def _function(self) -> Callable[..., Any]:
        try:
            return self.target.load()
        except Exception as exc:  # noqa: BLE001 - importing runs anything
            raise TargetMissing(
                f"Worker {Who.here()} cannot load {self.target}: {_line(exc)}",
                "Every host needs the same code: install it there, or put it where the worker finds it.",
            ) from None

    def _one(self, function: Callable[..., Any], payload: Payload) -> Outcome:
        try:
            item = self.parse(payload)
        except Exception as exc:  # noqa: BLE001 - a RecursionError, for JSON that is nested too deep
            return Failure("input", _line(exc))
        try:
            with limit(self.timeout):
                result = function(item)
        except Late as exc:
            return Failure("timeout", f"TimeoutError: {exc}", _told(exc)[1])
        except BaseException as exc:  # noqa: BLE001 - a SystemExit too: it is this item's failure, not the worker's end
            return Failure("call", *_told(exc))
        try:
            return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
        except Exception as exc:  # noqa: BLE001 - whatever the encoder raises, or an object's own methods
            return Failure("result", f"the result is not JSON: {_line(exc)}")


def _line(exc: BaseException) -> str:
    return "".join(traceback.format_exception_only(exc)).strip()


def _told(exc: BaseException) -> tuple[str, str]:
    """The exception in one line, and in full without the frame that called the function."""
    frames = exc.__traceback__.tb_next if exc.__traceback__ else None
    return _line(exc), "".join(traceback.format_exception(type(exc), exc, frames))
