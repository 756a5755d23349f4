"""Spans of OpenTelemetry for calls and jobs, in a program that uses it; in any other, nothing is recorded or sent.

Who asks for a call has a span of kind PRODUCER, from then to its answer; who runs it one of kind CONSUMER, whose parent that
is. The context travels inside of the call, and so encrypted. Where the spans go is the program's to say: it sets a tracer
provider, at the level of its main module or in an initializer, so that its workers have one as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import util
from typing import Any

NAME = "crosshost"

Carrier = dict[str, str]
"""A context in words, as W3C's ``traceparent`` says it."""


def _api() -> Any:
    """``opentelemetry.trace`` if the program has imported it; without that it has no provider."""
    return sys.modules.get("opentelemetry.trace")


def begin(function: Callable[..., Any], asked: str) -> tuple[Any, Any]:
    """A function to send in place of one that is to be called, and the span of who asks for it; None if nobody records.

    Args:
        function: What is to be called.
        asked: How it was asked for: ``Pool.map``.
    """
    if (api := _api()) is None or not _recorded(api):
        return function, None
    name = name_of(function)
    span = api.get_tracer(NAME).start_span(f"{asked} {name}", kind=api.SpanKind.PRODUCER)
    carrier = _carrier(api.set_span_in_context(span))
    return (Spanned(function, name, carrier) if carrier else function), span if span.is_recording() else None


def current() -> Carrier:
    """The context here and now; empty if there is none."""
    api = _api()
    return {} if api is None or not _recorded(api) else _carrier(None)


def _recorded(api: Any) -> bool:
    """Whether somebody records: there is a provider, or a span of who called this process. It is asked at every call."""
    found = not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)
    return found or bool(api.get_current_span().get_span_context().is_valid)


@contextmanager
def asking(name: str) -> Iterator[None]:
    """A span of kind PRODUCER around whatever is sent in it."""
    if (api := _api()) is None:
        yield
        return
    with api.get_tracer(NAME).start_as_current_span(name, kind=api.SpanKind.PRODUCER):
        yield


def _carrier(context: Any) -> Carrier:
    from opentelemetry import propagate

    carrier: Carrier = {}
    propagate.inject(carrier, context)
    return carrier


def end(span: Any, exc: BaseException | None = None) -> None:
    """End a span that ``begin`` has given, with an error if there was one."""
    if span is None:
        return
    if exc is not None:
        from opentelemetry.trace import Status, StatusCode

        span.record_exception(exc)
        span.set_status(Status(StatusCode.ERROR, f"{type(exc).__name__}: {exc}"))
    span.end()


def ending(span: Any, callback: Any, error_callback: Any) -> tuple[Any, Any]:
    """Callbacks of a pool that end a span, and then are those that were given."""
    if span is None:
        return callback, error_callback

    def answered(then: Any, failed: bool, value: Any) -> None:
        end(span, value if failed else None)
        if then is not None:
            then(value)

    return partial(answered, callback, False), partial(answered, error_callback, True)


def settled(span: Any, future: Any) -> None:
    """End the span of a future that is done."""
    if future.cancelled():
        span.set_attribute("crosshost.cancelled", True)
        span.end()
    else:
        end(span, future.exception())


def name_of(function: Any) -> str:
    """What a call is called by its function."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


class Spanned:
    """A function as a worker calls it, with the context of who asked for it.

    Args:
        function: The program's.
        name: Of the span.
        carrier: The context.
    """

    def __init__(self, function: Callable[..., Any], name: str, carrier: Carrier) -> None:
        self.function, self.__name__, self.__qualname__, self.carrier = function, name, name, carrier

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        """Call it, in a span of its own."""
        return under(self.carrier, self.__name__, partial(self.function, *args, **kwds))


def under(carrier: Carrier, name: str, call: Callable[[], Any]) -> Any:
    """Call something in a span whose parent is elsewhere; where OpenTelemetry is not installed, without one."""
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return call()
    _flush_at_exit(trace)
    tracer, context = trace.get_tracer(NAME), propagate.extract(carrier)
    with tracer.start_as_current_span(name, context=context, kind=trace.SpanKind.CONSUMER):
        return call()


_flushed: set[int] = set()
"""Providers that are flushed when this process ends."""


def _flush_at_exit(trace: Any) -> None:
    """Excluded: spans that a worker has gathered and not sent, as ``atexit`` does not run in a child of multiprocessing."""
    provider = trace.get_tracer_provider()
    if id(provider) not in _flushed and (flush := getattr(provider, "force_flush", None)):
        _flushed.add(id(provider))
        util.Finalize(None, flush, exitpriority=1)
