"""What the search promises: all orders, each counted once; the same ones whenever it is asked."""

from __future__ import annotations

import queue
import random
from collections import Counter
from math import factorial
from typing import Any

import pytest

from lab.explored import search
from lab.explored.scheduler import CannotExplore
from lab.explored.search import Exploration, explore
from tests.explored import programs
from tests.explored.programs import together

ALL = 99
"""A bound on preemptions that bounds nothing: every order is a run of its own."""


def texts(found: Exploration, weights: bool = True) -> dict[str, int]:
    numbers = found.weights if weights else found.found
    return {outcome.text: number for outcome, number in numbers.items()}


@pytest.mark.parametrize(("workers", "times"), [(2, 1), (2, 2), (3, 1), (2, 3)])
def test_without_reduction_there_are_as_many_orders_as_the_multinomial_says(workers: int, times: int) -> None:
    steps = 2 * times  # a read and a write
    expected = factorial(workers * steps) // factorial(steps) ** workers
    found = explore(programs.counting(workers, times), bound=ALL)
    assert (found.complete, found.runs) == (True, expected)


@pytest.mark.parametrize(("workers", "times"), [(2, 1), (2, 2), (3, 1), (2, 3)])
def test_the_reduction_counts_what_it_does_not_run(workers: int, times: int) -> None:
    every = explore(programs.counting(workers, times), bound=ALL)
    found = explore(programs.counting(workers, times))
    assert found.complete
    assert found.runs < every.runs
    assert found.orders == every.runs
    assert texts(found) == texts(every)


def test_two_increments_by_two_workers() -> None:
    assert texts(explore(programs.counting(2, 2))) == {"2": 32, "3": 32, "4": 6}


KINDS = ["add", "raw", "lock", "try", "take", "give", "set", "clear", "wait", "look", "put", "get", "peek"]
KINDS += ["sleep_on", "wake"]


def random_worker(me: int, script: list[tuple[str, int]], things: dict[str, Any]) -> None:
    seen: list[Any] = []
    for kind, variant in script:
        step(kind, variant, me, seen, **things)
    print(seen)


def step(
    kind: str, variant: int, me: int, seen: list[Any], value: Any, raw: Any, row: Any, lock: Any, tokens: Any, event: Any,
    items: Any, condition: Any,
) -> None:  # fmt: skip
    if kind == "add":
        value.value += 1
    elif kind == "raw":
        row[variant] = raw.value + variant
    elif kind == "lock":
        with lock:
            raw.value += 1
    elif kind == "try" and lock.acquire(block=False):
        value.value = 7
        lock.release()
    elif kind == "take":
        tokens.acquire()
    elif kind == "give":
        tokens.release()
    elif kind in ("set", "clear"):
        getattr(event, kind)()
    elif kind == "wait":
        seen.append(event.wait(5 if variant else None))
    elif kind == "look":
        seen.append((event.is_set(), items.empty()))
    elif kind == "put":
        items.put(me)
    elif kind in ("get", "peek"):
        try:
            seen.append(items.get(kind == "get", 3 if variant else None))
        except queue.Empty:
            seen.append("nothing")
    elif kind == "sleep_on":
        with condition:
            seen.append(condition.wait(2 if variant else None))
    elif kind == "wake":
        with condition:
            condition.notify()


def random_program(seed: int) -> programs.Program:
    dice = random.Random(seed)
    scripts = [
        [(dice.choice(KINDS), dice.randrange(2)) for _ in range(dice.randrange(1, 3))]
        for _ in range(dice.choice((2, 2, 3)))
    ]

    def program(ctx: Any) -> None:
        things = {
            "value": ctx.Value("i", 0), "raw": ctx.RawValue("i", 0), "row": ctx.Array("i", 2), "lock": ctx.Lock(),
            "tokens": ctx.Semaphore(1), "event": ctx.Event(), "items": ctx.Queue(2), "condition": ctx.Condition(),
        }  # fmt: skip
        together(ctx, *[(random_worker, (me, script, things)) for me, script in enumerate(scripts)])
        print(things["value"].value, things["raw"].value, list(things["row"]), things["tokens"].get_value())

    return program


@pytest.mark.parametrize("seed", range(25))
def test_of_any_program_the_reduction_finds_what_all_orders_have(seed: int) -> None:
    every = explore(random_program(seed), bound=ALL, limit=4000)
    assert every.complete
    found = explore(random_program(seed), limit=8000)
    assert found.complete
    assert found.orders == every.runs
    assert found.weights == every.found


def test_a_bound_on_preemptions_leaves_out_what_needs_more() -> None:
    assert texts(explore(programs.counting(2, 2), bound=0), weights=False) == {"4": 2}
    one = explore(programs.counting(2, 2), bound=1)
    assert one.complete
    assert set(texts(one, weights=False)) == {
        "2",
        "4",
    }  # to end with 3, each must come between the other's read and write
    assert one.runs < 70


def test_what_is_too_large_is_drawn_and_said_to_be() -> None:
    found = explore(programs.counting(3, 4), limit=100, seed=7)
    assert (found.complete, found.runs, found.drawn, found.orders) == (False, 100, 50, None)
    assert found.largest == factorial(25) // factorial(8) ** 3  # with what the program itself reads at the end
    assert len(found.wrong) > 1


def test_the_same_seed_draws_the_same_orders_and_another_one_others() -> None:
    def drawn(seed: int) -> Counter[Any]:
        return explore(programs.counting(3, 4), limit=60, seed=seed).found

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_order_explored_is_an_error() -> None:
    with pytest.raises(CannotExplore, match="0 orders"):
        explore(programs.counting(1, 1), limit=0)


def test_a_program_that_depends_on_more_than_its_order_is_refused() -> None:
    runs = iter(range(1000))

    def program(ctx: Any) -> None:
        value = ctx.Value("i", 0)
        together(ctx, *[(programs.add, (value, 1))] * (2 if next(runs) < 2 else 1))

    with pytest.raises(CannotExplore, match="took other steps under the same choices"):
        explore(program)


def test_the_end_of_a_process_is_a_choice_when_the_program_asks_for_it() -> None:
    def program(ctx: Any) -> tuple[bool, int]:
        child = ctx.Process(target=print)
        child.start()
        alive = child.is_alive()
        child.terminate()
        child.join()
        return alive, child.exitcode

    assert texts(explore(program)) == {"(True, -15)": 1, "(True, 0)": 1, "(False, 0)": 1}


def test_the_shortest_order_has_no_preemption_too_many() -> None:
    program = programs.counting(2, 2)
    from lab.explored.context import ExploredContext

    explorer = search.Explorer(lambda: program(ExploredContext()))
    found = explorer.explore()
    shortest = {one.text: explorer.shortest(one, found.examples[one]) for one in found.wrong}
    assert {text: run.preemptions for text, run in shortest.items()} == {"2": 1, "3": 2}
