"""Count the words of the text files in a folder: map, and a reduce in a tree.

Hosts do not see the folder of who submits, so its contents travel, which is why they are bounded. Merging in a tree keeps
every merge small and lets merges run side by side; one merge of everything would wait for the last map and work alone.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from lab.jobs.job import Arguments, BadArgument, Chunk, Folder, Job

MOST_CHARACTERS = 4 << 20
"""Of all files. However different their words, the last merge then fits into one message."""
CHUNK = 256 << 10
FAN_IN = 4
"""Counts that one merge takes."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def split(folder: str) -> list[Chunk]:
    """The texts of ``*.txt``, in chunks of at most ``CHUNK`` characters that never cut a word.

    Raises:
        BadArgument: The folder cannot be read, has no such files, or more than ``MOST_CHARACTERS``.
    """
    chunks, piece, size, total = [], list[str](), 0, 0
    for text in _texts(folder):
        total += len(text)
        if total > MOST_CHARACTERS:
            raise BadArgument(
                f"The *.txt files in {folder!r} have more than {MOST_CHARACTERS >> 20} million characters.",
                "They travel to the workers through Redis; count fewer at a time.",
            )
        for part in _pieces(text):
            if size + len(part) + 1 > CHUNK:
                chunks.append(("\n".join(piece),))
                piece, size = [], 0
            piece.append(part)
            size += len(part) + 1
    return [*chunks, ("\n".join(piece),)]


def count(text: str) -> dict[str, int]:
    """How often each word occurs, in lower case.

    Raises:
        BadArgument: It is no text of at most ``CHUNK`` characters.
    """
    if not isinstance(text, str) or len(text) > CHUNK:
        raise BadArgument(f"A chunk has to be a text of at most {CHUNK} characters.")
    return dict(Counter(_WORD.findall(text.lower())))


def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """The sum of counts. It is associative, so a tree of merges gives what one merge gives."""
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return dict(total)


def _texts(folder: str) -> list[str]:
    try:
        files = sorted(Path(folder).glob("*.txt"))
        if sum(file.stat().st_size for file in files) > 4 * MOST_CHARACTERS:  # UTF-8 has up to 4 bytes a character
            raise BadArgument(f"The *.txt files in {folder!r} are too large.", "Count fewer at a time.")
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    except OSError as exc:
        raise BadArgument(f"{exc.filename!r} cannot be read: {exc.strerror}.") from exc
    if not texts:
        raise BadArgument(f"There is no *.txt file in {folder!r}.", "Name a folder that has some.")
    return texts


def _pieces(text: str) -> list[str]:
    """Pieces of less than ``CHUNK`` characters, cut after white space; a word longer than that is cut."""
    pieces, start = [], 0
    while len(text) - start >= CHUNK:
        blanks = list(re.finditer(r"\s", text[start : start + CHUNK - 1]))
        end = start + (blanks[-1].end() if blanks else CHUNK - 1)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def show(_arguments: Arguments, result: Any) -> list[str]:
    """The number of words, and the twenty most frequent."""
    top = sorted(result.items(), key=lambda item: (-item[1], item[0]))[:20]
    lines = [f"{sum(result.values()):,} words, {len(result):,} different; the most frequent:"]
    return lines + [f"  {number:8,}  {word}" for word, number in top]


JOB = Job(
    summary="Count the words of the *.txt files in a folder.",
    parameters=(Folder("folder", "Folder of this machine with *.txt files, 4 million characters at the most."),),
    split=split,
    work=count,
    merge=merge,
    show=show,
)
