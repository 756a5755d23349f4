"""What a shell offers when somebody presses Tab: commands, options, and the names and files that they take.

The shell asks the program itself, with ``_PRODUCER_COMPLETE`` in its environment, and click answers. What is here tells it
what a parameter takes, by the check that it goes through or by how its help names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from lab import MORE_PLACES, PLACES
from producer import names

VARIABLE = "_PRODUCER_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def script(shell: str, command: click.Command) -> str:
    """What a shell reads to complete a command of ours."""
    made = get_completion_class(shell)
    assert made is not None
    return made(command, {}, "producer", VARIABLE).source() + "\n"


def _concepts() -> Iterable[str]:
    from lab.concepts import CONCEPTS

    return CONCEPTS


def _lessons() -> Iterable[str]:
    from producer.learning import lesson

    return lesson.names()


def _exercises() -> Iterable[str]:
    from producer.exercise import exercise

    return exercise.names()


BY_CHECK: dict[Callable[..., Any], Callable[[], Iterable[str]]] = {
    names.check_concepts: _concepts,
    names.check_lesson: _lessons,
    names.check_exercise: _exercises,
    names.check_place: lambda: PLACES,
    names.check_places: lambda: PLACES,
    names.check_more_places: lambda: [*PLACES, *MORE_PLACES],
}
"""The names that pass a check."""

BY_WORD: dict[str, Callable[[], Iterable[str]]] = {"CONCEPT": _concepts}
"""The names that a word in capitals stands for."""


def teach(command: click.Command) -> click.Command:
    """Have the parameters of a command, and of those below it, say what they take; the command."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        teach(below)
    for parameter in command.params:
        known = [*_known(parameter)]
        kind = _kind(parameter)
        if known or kind:
            vars(parameter)["shell_complete"] = partial(_offered, known, kind)
    return command


def _words(parameter: click.Parameter) -> list[str]:
    return re.findall(r"[A-Z][A-Z]+|\.py|\.html", parameter.metavar or "")


def _known(parameter: click.Parameter) -> Iterator[Callable[[], Iterable[str]]]:
    if parameter.callback in BY_CHECK:
        yield BY_CHECK[parameter.callback]
    else:
        yield from (BY_WORD[word] for word in _words(parameter) if word in BY_WORD)


def _kind(parameter: click.Parameter) -> str:
    """``file`` or ``dir`` if that is what it takes, as the shell calls it."""
    words = _words(parameter)
    if "DIR" in words and "FILE" not in words:
        return "dir"
    return "file" if {"FILE", "DIR", "INPUT", "SCRIPT", ".py", "ARGS"} & {*words} else ""


def _offered(known: list[Callable[[], Iterable[str]]], kind: str, _: click.Context, typed: str) -> list[CompletionItem]:
    offered = [CompletionItem(name) for listed in known for name in listed() if name.startswith(typed)]
    return [*offered, *([CompletionItem(typed, type=kind)] if kind else [])]
