"""What a command records of what it runs, if it was asked for a trace or a report; else nothing, and nothing is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from producer.runs import Run, run

if TYPE_CHECKING:
    from lab.trace.events import Trace
    from producer.comparison import Comparison


class Recording:
    """The traces of a command.

    Args:
        trace: File for the trace; empty for none.
        report: File for the report; empty for none.
    """

    def __init__(self, trace: str = "", report: str = "") -> None:
        self._files = trace, report
        self._traces: list[Trace] = []
        self._note: Any = None

    def __bool__(self) -> bool:
        return any(self._files)

    def run(self, concept: str, ctx: Any) -> Run:
        """Run a concept in a place. One that is traced has no costs: tracing would be among them."""
        with self.around(ctx, concept) as around:
            outcome = run(concept, around)
        if self:
            outcome.result.costs.clear()
        return outcome

    @contextmanager
    def around(self, ctx: Any, name: str) -> Iterator[Any]:
        """The context to run something in, which is traced if that is wanted.

        Args:
            ctx: The context of a place, connected if it is a cluster's.
            name: Of what is run.
        """
        if not self:
            yield ctx
            return
        from lab.trace.context import Tracing

        tracing = Tracing(ctx, name)
        self._note = tracing.note
        interrupted = False
        try:
            with tracing as traced:
                yield traced
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if tracing.trace is not None:
                self._traces.append(tracing.trace)
            if interrupted:
                self.write(told="it was interrupted")

    def note(self, event: str, **more: Any) -> None:
        """Enter something that is not done by what runs, if it is traced."""
        if self._note is not None:
            self._note(event, **more)

    def write(self, comparison: Comparison | None = None, told: str = "") -> None:
        """Write what was asked for.

        Args:
            comparison: What was measured without a trace.
            told: How the command ended.
        """
        if self:
            from producer.trace.written import write

            write(*self._files, self._traces, comparison, told)
