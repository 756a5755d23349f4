"""Names that were typed: known ones pass, for others the nearest is named."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import click

from lab import MORE_PLACES, PLACES
from lab.errors import ExitCode, LabError


class BadName(LabError, ValueError):
    """A name on the command line that stands for nothing."""

    exit_code = ExitCode.USAGE


class Whole(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A time within bounds."""

    name = "number of seconds"


def check_concepts(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The concepts typed, once each, in the order typed; all of them when none was.

    Raises:
        BadName: One of them is not a concept.
    """
    from lab.concepts import CONCEPTS

    return _known("concept", typed, list(CONCEPTS), "producer concepts")


def check_lesson(_ctx: click.Context, _param: click.Parameter, typed: str | None) -> str | None:
    """The lesson typed, if one was.

    Raises:
        BadName: It is not a lesson.
    """
    from producer.learning import lesson

    return _known("lesson", [typed], lesson.names(), "producer learn")[0] if typed is not None else None


def check_exercise(_ctx: click.Context, _param: click.Parameter, typed: str | None) -> str | None:
    """The exercise typed, if one was.

    Raises:
        BadName: It is not an exercise.
    """
    from producer.exercise import exercise

    return _known("exercise", [typed], exercise.names(), "producer exercise list")[0] if typed is not None else None


def check_lessons(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The lessons typed, once each, in the order typed; none when none was. ``a,b`` means both.

    Raises:
        BadName: One of them is not a lesson.
    """
    from producer.learning import lesson

    return _known("lesson", _words(typed), lesson.names(), "producer learn") if typed else []


def check_exercises(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The exercises typed, likewise.

    Raises:
        BadName: One of them is not an exercise.
    """
    from producer.exercise import exercise

    return _known("exercise", _words(typed), exercise.names(), "producer exercise list") if typed else []


def check_time(_ctx: click.Context, _param: click.Parameter, typed: str | None) -> datetime | None:
    """The time typed, if one was; it is this system's where it has no time zone.

    Raises:
        BadName: It is none.
    """
    try:
        return datetime.fromisoformat(typed).astimezone() if typed else None
    except (ValueError, OverflowError) as exc:
        raise BadName(f"{typed!r} is no time.", "For example: --due 2027-01-31T18:00") from exc


def check_places(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The places typed, once each, in the order typed; all of them when none was. ``a,b`` means both.

    Raises:
        BadName: One of them is not a place.
    """
    return _known("place", _words(typed), list(PLACES), "producer compare --help")


def check_more_places(_ctx: click.Context, _param: click.Parameter, typed: tuple[str, ...]) -> list[str]:
    """The places typed, of all five; none when none was typed, as not every one of them is everywhere.

    Raises:
        BadName: One of them is not a place.
    """
    return _known("place", _words(typed), [*PLACES, *MORE_PLACES], "producer compare --help") if typed else []


def check_place(_ctx: click.Context, _param: click.Parameter, typed: str) -> str:
    """The place typed.

    Raises:
        BadName: It is not a place.
    """
    return _known("place", [typed], list(PLACES), "producer compare --help")[0]


def check_folder(_ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """The path, if a file can be written there: to be known before the work, not after it.

    Raises:
        BadName: There is no such folder, or it may not be written to.
    """
    if path and path != "-":
        if Path(path).is_dir():
            raise BadName(f"Cannot write {path!r}: it is a folder.", "Name a file in it.")
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadName(f"Cannot write {path!r}: {str(folder)!r} is not a writable folder.", f"mkdir -p '{folder}'")
    return path


def check_rtt(_ctx: click.Context, _param: click.Parameter, typed: str) -> float:
    """Seconds of the round trip typed, 0 for none.

    Raises:
        BadName: It is none.
    """
    from lab.fleet.distance import duration

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


class Group(click.Group):
    """A group that answers an unknown command with the nearest one."""

    kind = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by the first of the arguments.

        Raises:
            BadName: There is none of that name.
        """
        if not args[0].startswith("-") and not ctx.resilient_parsing:  # as when a shell completes what is not whole yet
            _known(self.kind, args[:1], self.list_commands(ctx), f"{ctx.command_path} --help")
        return super().resolve_command(ctx, args)


OF_RUN = ("--on", "--with", "--packages", "--trace", "--report")
"""Options of ``producer run`` that may follow the script's name."""


def apart_from_script(args: list[str]) -> list[str]:
    """The arguments of ``producer run``, with ``--`` before those that are the script's own.

    Raises:
        BadName: A place is named among the script's own arguments: it could be meant for either.
    """
    at, script, ours = 0, "", list[str]()
    while at < len(args) and args[at] != "--":
        if not script and args[at] == "-m":
            return _apart_from_module(ours, args[at + 1 :])
        width = 2 if args[at] in OF_RUN else 1
        if (
            width == 1
            and args[at].partition("=")[0] not in OF_RUN
            and (script or args[at] == "-" or args[at][0:1] != "-")
        ):
            if script:
                break
            script = args[at]
        ours += args[at : at + width]
        at += width
    its = args[at:]
    if not script or not its or its[0] == "--":
        return args
    for place in PLACES:
        for words in (["--on", place], [f"--on={place}"]):
            for i in range(len(its)):
                if its[i : i + len(words)] == words:
                    rest = [*its[:i], *its[i + len(words) :]]
                    raise BadName(
                        f"Whose is {' '.join(words)!r}, which follows an argument of {script}?",
                        f"If it names the place: producer run {shlex.join([script, '--on', place, '--', *rest])}\n"
                        f"If it is the script's: producer run {shlex.join([*ours, '--', *its])}",
                    )
    return [*ours, "--", *its]


def _apart_from_module(ours: list[str], rest: list[str]) -> list[str]:
    """The arguments of ``producer run -m MODULE``, as those of a script named ``-m`` whose first argument is the module."""
    if not rest or rest[0].startswith("-"):
        raise BadName("-m needs the name of a module.", "For example: producer run -m package.module")
    module, *its = apart_from_script([*ours, *rest])[len(ours) :]
    at = its.index("--") if "--" in its else len(its)
    return [*ours, *its[:at], "--", "-m", module, *its[at + 1 :]]


def _words(typed: Sequence[str]) -> list[str]:
    """What was typed, taken apart at its commas."""
    return [word.strip() for text in typed for word in text.split(",")]


def _known(kind: str, typed: Sequence[str], known: list[str], listing: str) -> list[str]:
    for word in typed:
        if word not in known:
            raise BadName(f"There is no {kind} {word!r}.", _advice(word, known, listing))
    return list(dict.fromkeys(typed)) or known


def _advice(word: str, known: list[str], listing: str) -> str:
    near = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    question = f"Did you mean {near[0]!r}? " if near else ""
    return f"{question}There are: {', '.join(known)}.\nTo read about them: {listing}"
