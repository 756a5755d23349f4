"""The items of a file, one by one: as many bytes in memory as the longest item has."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ExitCode, LabError
from lab.mapping.chunk import Payload

BLOCK = 1 << 16
LONGEST = 64 << 20
"""Bytes of the longest line; a longer one is a failed item, so that a file without line ends cannot fill the memory."""

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
FORMATS = ("lines", "jsonl", "csv")
BOM = b"\xef\xbb\xbf"


class BadInput(LabError, ValueError):
    """The input cannot be read at all."""

    exit_code = ExitCode.USAGE


@dataclass(slots=True)
class Item:
    """One item.

    Attributes:
        index: Its place among the items, from 0.
        line: The number of its first line in the file, from 1.
        payload: What is sent to a worker.
        digest: Eight bytes that tell it from another item at the same place.
        fault: Why it cannot be sent; empty if it can.
        size: Its bytes in the file.
    """

    index: int
    line: int
    payload: Payload
    digest: bytes
    fault: str
    size: int


@dataclass(frozen=True)
class Source:
    """The input.

    Attributes:
        name: Its path; ``-`` for standard input.
        fd: Descriptor to read from.
        size: Bytes, None where that cannot be known (a pipe).
        modified: Time of the last change in nanoseconds, None likewise.
    """

    name: str
    fd: int
    size: int | None
    modified: int | None

    @classmethod
    def open(cls, name: str) -> Source:
        """Open a file, or standard input for ``-``.

        Raises:
            BadInput: There is no such file, or it may not be read.
        """
        if name == "-":
            return cls(name, 0, None, None)
        try:
            fd = os.open(name, os.O_RDONLY)
        except OSError as exc:
            raise BadInput(f"Cannot read {name!r}: {exc.strerror}.", _near_file(name)) from None
        if os.path.isdir(name):
            os.close(fd)
            raise BadInput(f"{name!r} is a folder.", "Name a file in it, or feed it in: cat FILES | producer map ... -")
        status = os.fstat(fd)
        regular = os.path.isfile(name)
        return cls(name, fd, status.st_size if regular else None, status.st_mtime_ns if regular else None)

    def guess_format(self) -> str:
        """The format that the suffix of the name stands for; ``lines`` for one that is not known."""
        return SUFFIXES.get(Path(self.name).suffix.lower(), "lines")


def _near_file(name: str) -> str:
    from producer.target import nearest

    folder = Path(name).absolute().parent
    return nearest(Path(name).name, os.listdir(folder) if folder.is_dir() else []) or f"See: ls '{folder}'"


class Reader:
    """Iterates over the items of an input.

    ``lines``: every line is an item, an empty one too. ``jsonl``: every line that is not blank. ``csv``: every record but
    the first, which names the columns; a record may go over several lines.

    Args:
        fd: Descriptor to read from.
        format: One of ``FORMATS``.

    Attributes:
        header: Names of the columns, for CSV.

    Raises:
        BadInput: The header of a CSV file cannot be read.
    """

    def __init__(self, fd: int, format: str) -> None:
        self._lines = _lines(fd)
        self._number = 0
        self._raw = b""
        self._fault = self._broken = ""
        self.header: tuple[str, ...] = ()
        self._items = {"lines": self._each, "jsonl": self._each_value, "csv": self._each_row}[format]()
        if format == "csv":
            self._rows = csv.reader(self._texts(), strict=True)
            self.header = self._read_header()

    def __iter__(self) -> Iterator[Item]:
        return self._items

    def _next_line(self) -> bytes | None:
        """The next line without its end; ``_fault`` says what is wrong with it."""
        line = next(self._lines, None)
        if line is None:
            return None
        if self._number == 0:
            line = line.removeprefix(BOM)
        self._number += 1
        self._fault = ""
        if len(line) > LONGEST:
            self._fault, line = f"line {self._number} is longer than {LONGEST >> 20} MiB", line[:BLOCK]
        return line[:-1] if line.endswith(b"\r") else line

    def _each(self) -> Iterator[Item]:
        while (line := self._next_line()) is not None:
            yield Item(self._number - 1, self._number, line, _digest(line), self._fault, len(line) + 1)

    def _each_value(self) -> Iterator[Item]:
        index = 0
        while (line := self._next_line()) is not None:
            if line and not line.isspace():
                yield Item(index, self._number, line, _digest(line), self._fault, len(line) + 1)
                index += 1

    def _texts(self) -> Iterator[str]:
        """Lines as the csv module wants them; what they are made of gathers in ``_raw``."""
        while (line := self._next_line()) is not None:
            self._raw += line + b"\n"
            try:
                text = line.decode()
            except UnicodeDecodeError as exc:
                self._broken = self._broken or f"line {self._number} is not UTF-8: {exc}"
                text = line.decode(errors="replace")
            self._broken = self._broken or self._fault
            yield text + "\n"

    def _read_header(self) -> tuple[str, ...]:
        self._broken = ""
        try:
            header = tuple(next(self._rows, ()))
        except csv.Error as exc:
            raise BadInput(f"The header of the CSV input cannot be read: {exc}.", "Is it CSV? See --format.") from None
        if self._broken:
            raise BadInput(f"The header of the CSV input cannot be read: {self._broken}.", "Is it CSV? See --format.")
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise BadInput(f"The header of the CSV input names {twice!r} twice.", "Rename a column.")
        return header

    def _each_row(self) -> Iterator[Item]:
        index = 0
        while True:
            # the header stays in _raw for the first row: an input with another header is another input
            begun, self._broken = self._number + 1, ""
            try:
                row: list[str] | None = next(self._rows, None)
            except csv.Error as exc:
                where = f"line {begun}" if self._number == begun else f"lines {begun} to {self._number}"
                row, self._broken = [], f"{where}: {exc}"
            if row is None:
                return
            if row or self._broken:
                yield Item(index, begun, row, _digest(self._raw), self._broken, len(self._raw))
                index, self._raw = index + 1, b""


def _lines(fd: int) -> Iterator[bytes]:
    """Lines without their newline, each as soon as it is there; of one that is too long, only the beginning."""
    parts: list[bytes] = []
    held = 0
    while data := os.read(fd, BLOCK):
        first, *others = data.split(b"\n")
        if held <= LONGEST:
            parts.append(first)
            held += len(first)
        for other in others:
            yield b"".join(parts)
            parts, held = [other], len(other)
    if held:
        yield b"".join(parts)


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=8).digest()
