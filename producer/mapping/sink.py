"""Where results go: the output, the errors beside it, and the journal of both."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lab.mapping.chunk import Failure, Job, Outcome
from producer.mapping.journal import CannotResume, Journal
from producer.mapping.ledger import Ledger
from producer.mapping.reader import Item
from producer.output import OutputFailed

COMMIT_SECONDS = 0.1
"""Seconds between two entries in the journal, at least."""

TOLD = 10
"""Failed items that are told on stderr one by one; of the others, their number."""


class File:
    """A file to append to, without a buffer: what ``write`` returned from is in the hands of the kernel.

    Args:
        name: Its path; ``-`` for standard output.
        truncate: Whether to empty it.
        stdout: Descriptor of standard output.

    Attributes:
        size: Bytes written that count.
    """

    def __init__(self, name: str, truncate: bool, stdout: int = 1) -> None:
        self.name = name
        try:
            self.fd = os.dup(stdout) if name == "-" else os.open(name, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as exc:
            raise OutputFailed(f"Cannot write {name!r}: {exc.strerror}.", "Name another file.") from None
        self.regular = name != "-" and stat.S_ISREG(os.fstat(self.fd).st_mode)
        self.size = 0
        if self.regular:
            self._lock()
            if truncate:
                os.ftruncate(self.fd, 0)

    def _lock(self) -> None:
        if sys.platform == "win32":
            return  # it has no flock: two commands that write to one output are not told apart there
        import fcntl

        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotResume(
                f"Another command is writing {self.name!r}.", "Wait for it, or name another file."
            ) from None

    def cut(self, size: int) -> None:
        """Go on after so many bytes, and forget what is beyond.

        Raises:
            CannotResume: The file is shorter.
        """
        if (there := os.fstat(self.fd).st_size) < size:
            raise CannotResume(
                f"{self.name!r} has {there:,} bytes, but its journal tells of {size:,}.",
                "It was changed, or its last part did not reach the disk. To begin anew: --overwrite",
            )
        os.ftruncate(self.fd, size)
        os.lseek(self.fd, size, os.SEEK_SET)
        self.size = size

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OutputFailed: The disk is full, or the like; what is there of it is taken back.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except BrokenPipeError:
            sys.exit(128 + 13)  # SIGPIPE: the reader of a pipe has gone (producer map ... | head), which is no error
        except OSError as exc:
            if self.regular:
                with suppress(OSError):
                    os.ftruncate(self.fd, self.size)
            raise failed(self.name, exc) from exc
        self.size += len(data)


def failed(name: str, exc: OSError) -> OutputFailed:
    """What to say of an error in writing."""
    todo = "Make room" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "See to it"
    return OutputFailed(f"Writing {name!r} failed: {exc.strerror}.", f"{todo}.")


class Sink:
    """Takes what became of the items, and counts.

    Args:
        job: To show a failed item as its function saw it.
        output: Results, one line each.
        errors: Failures, one line each, or None to tell some of them on stderr.
        journal: None where the map cannot be resumed.
        indexed: Whether a result goes with its item's index.

    Attributes:
        done: Items with a result, those of an earlier run included.
        failed: Items without one.
    """

    def __init__(self, job: Job, output: File, errors: File | None, journal: Journal | None, indexed: bool) -> None:
        self._job, self._output, self._errors, self._journal, self._indexed = job, output, errors, journal, indexed
        self.ledger = Ledger()
        self.done = self.failed = 0
        self._told = self._errors_before = 0
        self._committed = 0.0
        self._dirty = False

    def resume(self, items: Iterator[Item], state: dict[str, Any]) -> Iterator[Item]:
        """The items that are left to do; brings counts and files to the state of the journal.

        Raises:
            CannotResume: The output is not what the journal tells of.
        """
        self._output.cut(state["output"])
        self._errors_before = state["errors"]
        if self._errors:
            self._errors.cut(state["errors"])
        self.done, self.failed = state["done"], state["failed"]
        return self.ledger.replay(items, state)

    def put(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
        """Write what became of successive items.

        Raises:
            OutputFailed: It could not be written.
        """
        results, failures = [], []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Failure):
                failures.append((item, outcome))
            elif self._indexed:
                results.append(b'{"index": %d, "result": %b}' % (item.index, outcome))
            else:
                results.append(outcome)
        before = self._output.size
        if results:
            self._output.write(b"\n".join(results) + b"\n")
        try:
            self._report(failures)
        except OutputFailed:
            if self._output.regular:  # else the items of this chunk would be half there
                self._output.cut(before)
            raise
        self.ledger.add(items)
        self.done += len(results)
        self.failed += len(failures)
        self._dirty = True

    def commit(self, now: bool = False, complete: bool = False) -> None:
        """Enter in the journal what was put since the last time; at most ten times a second unless it must be now."""
        if self._journal is None or not (self._dirty or complete):
            return
        if not now and time.monotonic() - self._committed < COMMIT_SECONDS:
            return
        state = {
            **self.ledger.to_json(),
            "output": self._output.size,
            "errors": self._errors.size if self._errors else self._errors_before,
            "done": self.done,
            "failed": self.failed,
            "complete": complete,
        }
        try:
            self._journal.write(state)
        except OSError as exc:
            raise failed(str(self._journal.path), exc) from exc
        self._committed, self._dirty = time.monotonic(), False

    def _report(self, failures: list[tuple[Item, Failure]]) -> None:
        if self._errors:
            if failures:
                self._errors.write(b"".join(self._record(item, failure) for item, failure in failures))
            return
        for item, failure in failures[: max(0, TOLD - self._told)]:
            print(f"item {item.index} (line {item.line}): {failure.error}", file=sys.stderr)
        if self._told < TOLD <= self._told + len(failures):
            print("More failed items are counted only; --on-error collect keeps them.", file=sys.stderr)
        self._told += len(failures)

    def _record(self, item: Item, failure: Failure) -> bytes:
        """A line of the file of errors: the item as the function got it, or as it stands in the file."""
        try:
            shown = self._job.parse(item.payload)
        except Exception:  # noqa: BLE001 - as in the worker
            raw = item.payload
            shown = raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
        record = {"index": item.index, "line": item.line, "item": shown, "kind": failure.kind}
        return json.dumps({**record, "error": failure.error, "traceback": failure.traceback}).encode() + b"\n"


@contextmanager
def prints_to_stderr() -> Iterator[int]:
    """Send to stderr what functions and their children print, as stdout belongs to the results: a descriptor of it."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        yield real
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)
