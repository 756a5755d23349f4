"""Circles are found in whatever order waits are met, and counted only if they last."""

from __future__ import annotations

import pickle
import random
import time
from multiprocessing import pool
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from lab.watching.circles import circles, lasting
from lab.watching.functions import function_of
from lab.watching.state import Fleet, Lock, Run, Waiter


def fleet(waits: dict[str, tuple[str, str]], generation: int = 0) -> Fleet:
    """A fleet on which processes wait for (lock, its holder)."""
    held: dict[str, tuple[str, list[str]]] = {}
    for process, (lock, holder) in waits.items():
        held.setdefault(lock, (holder, []))[1].append(process)
    locks = [
        Lock(name, "lock", 0, holder, f"{holder}/{name}{generation}", 0, [Waiter(w, f"{w}/{name}", 0) for w in waiters])
        for name, (holder, waiters) in held.items()
    ]
    return Fleet(0, 0, [], [], [Run("r", [], locks, [], [], True)], 0, 0, 0)


def test_a_circle_of_three_beside_those_who_only_wait_for_it() -> None:
    (found,) = circles(fleet({"x": ("A", "a"), "a": ("B", "b"), "b": ("C", "c"), "c": ("A", "a"), "y": ("D", "z")}))
    assert {link.process for link in found.links} == {"a", "b", "c"}
    assert [link.holder for link in found.links] == [link.process for link in [*found.links[1:], found.links[0]]]


def test_one_that_waits_for_itself_is_a_circle_and_a_chain_is_none() -> None:
    assert [len(each.links) for each in circles(fleet({"a": ("A", "a")}))] == [1]
    assert circles(fleet({"a": ("A", "b"), "b": ("B", "c"), "c": ("C", "d")})) == []


@pytest.mark.parametrize("seed", range(200))
def test_as_many_circles_as_following_each_wait_to_its_end_finds(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"p{i}" for i in range(rng.randint(1, 12))]
    holders = {f"l{i}": rng.choice(names) for i in range(len(names))}
    waits = {
        name: (lock, holders[lock]) for name in names if rng.random() < 0.8 for lock in [rng.choice(sorted(holders))]
    }
    expected = set()
    for name in waits:
        path = [name]
        while path[-1] in waits and (following := waits[path[-1]][1]) not in path:
            path.append(following)
        if path[-1] in waits:
            expected.add(frozenset(path[path.index(waits[path[-1]][1]) :]))
    found = circles(fleet(waits))
    assert {frozenset(link.process for link in each.links) for each in found} == expected
    assert len(found) == len(expected)


def test_a_circle_that_two_looks_make_of_different_moments_does_not_last() -> None:
    waits = {"a": ("B", "b"), "b": ("A", "a")}
    assert len(lasting(fleet(waits), fleet(waits))) == 1
    assert lasting(fleet(waits), fleet(waits, generation=1)) == []  # the locks have changed hands


def named(function: Any, *args: Any) -> str:
    return function_of(bytes(ForkingPickler.dumps((0, 1, function, args, {}))))


def test_a_calls_function_is_named_without_loading_it() -> None:
    mapstar: Any = vars(pool)["mapstar"]
    assert named(time.sleep, 1) == "time.sleep"
    assert named(mapstar, (time.sleep, (1, 2))) == "time.sleep"
    assert function_of(pickle.dumps(Exploding())) == "builtins.exec"  # named, and not called
    assert function_of(b"") == function_of(b"\x80\x05garbage") == ""
    assert named(time.sleep, b"x" * 100_000) == "time.sleep"


class Exploding:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it was loaded')",)
