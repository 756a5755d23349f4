"""The classic mistakes are found, and the same programs done right pass in every order."""

from __future__ import annotations

from typing import Any

import pytest

from lab.explored.search import explore
from tests.explored import programs

WRONG: dict[str, tuple[programs.Program, str, str]] = {
    "lost update": (programs.counting(2, 1), "result", "1"),
    "a sleep in place of a lock": (programs.counting_with_sleeps, "result", "1"),
    "two locks": (programs.dining(2, False), "deadlock", "and holds forks[0]"),
    "three philosophers": (programs.dining(3, False), "deadlock", "Process-3 waits for forks[0]"),
    "five philosophers": (programs.dining(5, False), "deadlock", "Process-5 waits for forks[0]"),
    "lost wake-up": (
        programs.waking(programs.wait_without_looking),
        "deadlock",
        "Process-1 waits for condition (wake)",
    ),
    "buffer off by one": (programs.buffering(room_for=2), "claim", "AssertionError: 2 instead of 1"),
    "barrier used again": (programs.home_made_barrier, "deadlock", "waits for gate"),
    "nobody sets the flag": (programs.spinning(False), "no progress", "goes round and round"),
}
RIGHT: dict[str, tuple[programs.Program, str]] = {
    "update under a lock": (programs.counting(2, 2, programs.add_locked), "4"),
    "three philosophers": (programs.dining(3, True), "fed"),
    "five philosophers": (programs.dining(5, True), "fed"),
    "wake-up": (programs.waking(programs.wait_and_look), "woken"),
    "buffer": (programs.buffering(room_for=1), "in order"),
    "larger buffer": (programs.buffering(room_for=2, size=2, items=3), "in order"),
    "barrier used again": (programs.real_barrier, "met"),
    "somebody sets the flag": (programs.spinning(True), "seen"),
    "who gives up after a while": (programs.gives_up, "gave up"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_mistake_is_found(name: str) -> None:
    program, kind, text = WRONG[name]
    found = explore(program)
    assert found.complete
    assert any(outcome.kind == kind and text in outcome.text for outcome in found.wrong), found.found


@pytest.mark.parametrize("name", RIGHT)
def test_done_right_it_passes_in_every_order(name: str) -> None:
    program, result = RIGHT[name]
    found = explore(program)
    assert found.complete
    assert not found.wrong
    assert {outcome.text for outcome in found.found} == {result}


def test_too_polite_workers_never_progress() -> None:
    found = explore(programs.polite, limit=200)
    assert {"result", "no progress"} <= {outcome.kind for outcome in found.found}


def test_a_deadlock_names_the_circle_with_both_lines() -> None:
    found = explore(programs.dining(2, False))
    (deadlock,) = found.wrong
    one, other = found.examples[deadlock].holds[:2]
    assert (one.holder, other.holder) == (other.worker, one.worker)
    assert one.holds[0][0] == other.what
    assert other.holds[0][0] == one.what
    assert one.where[1] == other.where[1] == programs.eat.__code__.co_firstlineno + 1


def test_an_exception_of_a_process_is_told_with_its_line() -> None:
    def fail(value: Any) -> None:
        value.value = 1
        raise KeyError("x")

    def program(ctx: Any) -> int:
        (child,) = programs.together(ctx, (fail, (ctx.Value("i", 0),)))
        return int(child.exitcode)

    ((outcome, _),) = explore(program).found.items()
    assert outcome.kind == "raised"
    assert outcome.text == f"KeyError: 'x' in Process-1 at line {fail.__code__.co_firstlineno + 2}"
