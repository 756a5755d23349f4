"""``producer map``: put the parts together, and say how it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from lab.concepts._shared import cores
from lab.errors import BrokerUnreachable, ExitCode
from lab.mapping.chunk import Job
from lab.program import along
from lab.program.target import Target
from producer import errors, interrupt, output, runs
from producer.mapping.bell import Bell
from producer.mapping.crew import Crew, gather
from producer.mapping.feed import Feed
from producer.mapping.flow import Flow
from producer.mapping.journal import CannotResume, Journal
from producer.mapping.meter import Meter, told
from producer.mapping.pace import Pace
from producer.mapping.reader import Item, Reader, Source
from producer.mapping.sink import File, Sink, prints_to_stderr
from producer.progress import Progress
from producer.recording import Recording
from producer.target import resolve, send_along


@dataclass(frozen=True)
class Options:
    """What was typed; see ``producer map --help``."""

    function: str
    input: str
    output: str = "-"
    place: str = "processes"
    format: str | None = None
    unordered: bool = False
    index: bool = False
    workers: int | None = None
    chunksize: int | None = None
    retries: int = 0
    timeout: float | None = None
    on_error: str = "stop"
    errors: str | None = None
    with_it: tuple[str, ...] = ()
    trace: str = ""
    resume: bool = False
    new_function: bool = False
    overwrite: bool = False
    as_json: bool = False
    quiet: bool = False

    def check(self) -> None:
        """See that they go together.

        Raises:
            BadUsage: They do not.
        """
        if self.output == "-" and (self.resume or self.as_json):
            option = "--resume" if self.resume else "--json"
            raise errors.BadUsage(f"{option} needs a file for the output.", "Name one: --output FILE")
        if self.resume and self.overwrite:
            raise errors.BadUsage("--resume keeps the output, --overwrite loses it.", "Choose one.")
        if self.on_error == "collect" and not self.errors_file:
            raise errors.BadUsage("--on-error collect needs a file for the errors.", "Name one: --errors FILE")
        if self.errors and self.on_error != "collect":
            raise errors.BadUsage("--errors is for --on-error collect.", "Add: --on-error collect")
        names = [os.path.realpath(name) for name in (self.input, self.output, self.errors_file) if name and name != "-"]
        if len(set(names)) < len(names):
            raise errors.BadUsage("Input, output and errors must be different files.", "Name another: --output FILE")

    @property
    def errors_file(self) -> str | None:
        """Where failures go."""
        if self.on_error != "collect":
            return None
        return self.errors or (f"{self.output}.errors.jsonl" if self.output != "-" else None)


class Mapping:
    """A map that is about to run.

    Args:
        options: What was typed.
        target: The function.
        source: The input.
        stdout: Descriptor of standard output.

    Raises:
        LabError: It cannot begin: input, output or journal do not allow it.
    """

    def __init__(self, options: Options, target: Target, source: Source, stdout: int) -> None:
        self._options, self.source = options, source
        self._format = options.format or source.guess_format()
        reader = Reader(source.fd, self._format)
        self.job = Job(target, self._format, reader.header, options.timeout)
        self._journal = self._open_journal(target)
        state = self._state()
        self.finished = bool(state and state["complete"])
        self._output = File(options.output, state is None, stdout)
        failures = File(options.errors_file, state is None, stdout) if options.errors_file else None
        self.sink = Sink(self.job, self._output, failures, self._journal, options.index)
        items: Iterator[Item] = iter(reader)
        self.items = items if state is None else self.sink.resume(items, state)
        if state is None:
            self.sink.commit(now=True)

    def _open_journal(self, target: Target) -> Journal | None:
        name = self._options.output
        if name == "-" or (os.path.exists(name) and not os.path.isfile(name)):  # a device, a named pipe
            if self._options.resume:
                raise errors.BadUsage(
                    f"{name!r} is no ordinary file, and nothing is left of it to resume.", "--output FILE"
                )
            return None
        identity = {
            "function": str(target),
            "source": target.fingerprint(),
            "size": self.source.size,
            "format": self._format,
            "index": self._options.index,
            "unordered": self._options.unordered,
        }
        return Journal(name, identity)

    def _state(self) -> dict[str, Any] | None:
        """What the journal tells of an earlier run that this one goes on with; None to begin."""
        options, journal = self._options, self._journal
        if journal is None or options.overwrite:
            return None
        state = journal.read()
        if state is None:
            if options.resume and os.path.exists(options.output) and os.path.getsize(options.output):
                raise CannotResume(
                    f"{options.output!r} is there, but not its journal {str(journal.path)!r}.",
                    "To begin anew and lose what it has: --overwrite instead of --resume",
                )
            return None
        if options.resume:
            journal.check(state, options.new_function)
            return state
        if not state["complete"] and state["done"] + state["failed"]:
            raise CannotResume(
                f"{options.output!r} is the output of a map that has not come to its end.",
                "To go on with it: --resume\nTo begin anew and lose what it has: --overwrite",
            )
        return None

    def flow(self, crew: Crew, bell: Bell, meter: Meter) -> Flow:
        """The flow of its items through a crew."""
        options = self._options
        # A thread cannot be interrupted: with a limit, each item is a chunk, so that it can be left alone with its thread.
        single = options.place == "threads" and options.timeout is not None
        return Flow(
            Feed(self.items, bell), crew, self.sink, Pace(1 if single else options.chunksize),
            ordered=not options.unordered, stop=options.on_error == "stop", retries=options.retries, look=meter.look,
        )  # fmt: skip

    @property
    def can_resume(self) -> bool:
        """Whether there is a journal."""
        return self._journal is not None

    def complete(self) -> None:
        """Enter in the journal that nothing is left."""
        self.sink.commit(now=True, complete=True)


def run(options: Options) -> ExitCode:
    """Map, and say how it ended.

    Returns:
        OK, or SOME_FAILED.

    Raises:
        LabError: It could not begin, or broke off; what was done until then is written.
    """
    options.check()
    with prints_to_stderr() as stdout:
        target = resolve(options.function)
        if options.place == "cluster":
            send_along(target)
        (along.take if options.place == "cluster" else along.check)(options.with_it)
        mapping = Mapping(options, target, Source.open(options.input), stdout)
        if mapping.finished:
            print(f"{options.output!r} is complete; nothing is left to do.", file=sys.stderr)
            return ExitCode.SOME_FAILED if mapping.sink.failed else ExitCode.OK
        with runs.opened([options.place], Progress(_screen(options))) as contexts:
            recording = Recording(options.trace)
            with recording.around(contexts[options.place], options.function) as ctx:
                summary = _map(mapping, ctx, options)
            recording.write()
    if not options.quiet:
        print(told(summary), file=sys.stderr)
    if options.as_json:
        output.write_json(summary)
    return ExitCode.SOME_FAILED if summary["failed"] else ExitCode.OK


def _screen(options: Options) -> TextIO | None:
    return sys.stderr if sys.stderr.isatty() and not options.quiet else None


def _map(mapping: Mapping, ctx: Any, options: Options) -> dict[str, Any]:
    bell = Bell()
    meter = Meter(mapping.sink, mapping.source.size, not options.quiet)
    crew = gather(ctx, options.workers or _workers(ctx), mapping.job, bell)
    flow = mapping.flow(crew, bell, meter)
    try:
        flow.run()
    except BaseException as exc:
        meter.stop()
        if not isinstance(exc, SystemExit):  # the reader of a pipe has gone: nobody minds
            _break_off(mapping, flow, exc)
        if isinstance(exc, BrokerUnreachable):
            # To close the pool would be to wait, two leases long, for workers of which nothing can be heard any more.
            errors.explain(exc)
            interrupt.leave(exc.exit_code)
        crew.close(at_once=True)
        raise
    meter.stop()
    mapping.complete()
    crew.close(at_once=False)
    return meter.summary(flow)


def _break_off(mapping: Mapping, flow: Flow, exc: BaseException) -> None:
    """Keep what is done, and say so: the error itself is told after this."""
    sink = mapping.sink
    try:
        if not isinstance(exc, output.OutputFailed):
            flow.salvage()
        sink.commit(now=True)
    except output.OutputFailed as worse:
        print(f"error: {worse.message}", file=sys.stderr)
    if not sink.done + sink.failed:
        return
    resume = "; to go on: the same command with --resume" if mapping.can_resume else ""
    print(f"Broken off: {sink.done:,} items done and written, {sink.failed:,} failed{resume}", file=sys.stderr)


def _workers(ctx: Any) -> int:
    """As many as can work at once: the free slots of a fleet, the cores of this host; of threads, which mostly wait, more."""
    if ctx.place == "cluster":
        return max(1, sum(int(host.slots - host.busy) for host in ctx.fleet()))
    return min(32, cores() + 4) if ctx.place == "threads" else cores()
