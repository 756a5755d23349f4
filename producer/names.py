"""Names that were typed: known ones pass, for others the nearest is named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import click

from lab import PLACES
from lab.errors import ExitCode, LabError


class BadName(LabError, ValueError):
    """A name on the command line that stands for nothing."""

    exit_code = ExitCode.USAGE


def check_concepts(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The concepts typed, once each, in the order typed; all of them when none was.

    Raises:
        BadName: One of them is not a concept.
    """
    from lab.concepts import CONCEPTS

    return _known("concept", typed, list(CONCEPTS), "producer concepts")


def check_places(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The places typed, once each, in the order typed; all of them when none was. ``a,b`` means both.

    Raises:
        BadName: One of them is not a place.
    """
    words = [word.strip() for text in typed for word in text.split(",")]
    return _known("place", words, list(PLACES), "producer compare --help")


def check_place(_ctx: click.Context, _param: click.Parameter, typed: str) -> str:
    """The place typed.

    Raises:
        BadName: It is not a place.
    """
    return _known("place", [typed], list(PLACES), "producer compare --help")[0]


def check_job(word: str) -> str:
    """The name of a job.

    Raises:
        BadName: There is no such job.
    """
    from lab.jobs import JOBS

    return _known("job", [word], list(JOBS), "producer submit --help")[0]


def check_folder(_ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """The path, if a file can be written there: to be known before the work, not after it.

    Raises:
        BadName: There is no such folder, or it may not be written to.
    """
    if path and path != "-":
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadName(f"Cannot write {path!r}: {str(folder)!r} is not a writable folder.", f"mkdir -p '{folder}'")
    return path


def check_rtt(_ctx: click.Context, _param: click.Parameter, typed: str) -> float:
    """Seconds of the round trip typed, 0 for none.

    Raises:
        BadName: It is none.
    """
    from lab.cluster.distance import duration

    try:
        return duration(typed) if typed else 0.0
    except ValueError as exc:
        raise BadName(f"--rtt: {exc}.", "For example: producer compare --rtt 2ms") from exc


def apart(places: list[str], rtt: float) -> list[str]:
    """The places, if a round trip can be added to one of them, or none was asked for.

    Raises:
        BadName: The cluster is not among them.
    """
    if rtt and "cluster" not in places:
        raise BadName("--rtt is a network's, and only the cluster has one.", "Leave it out, or add: --on cluster")
    return places


def _known(kind: str, typed: Sequence[str], known: list[str], listing: str) -> list[str]:
    for word in typed:
        if word not in known:
            raise BadName(f"There is no {kind} {word!r}.", _advice(word, known, listing))
    return list(dict.fromkeys(typed)) or known


def _advice(word: str, known: list[str], listing: str) -> str:
    near = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    question = f"Did you mean {near[0]!r}? " if near else ""
    return f"{question}There are: {', '.join(known)}.\nTo read about them: {listing}"
