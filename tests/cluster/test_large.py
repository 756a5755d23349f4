"""Large arrays and bytes arrive as what they are, wherever they go through, and may be written to by who gets them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import lab
from tests.cluster import large_targets as targets
from tests.cluster.large_targets import TIMEOUT

LARGE = [
    np.arange(50_000), np.asfortranarray(np.arange(60_000.0).reshape(200, 300)), b"bytes" * 50_000, bytearray(300_000),
    {"a": np.ones((100, 1000)), "b": [b"x" * 200_000, np.arange(9_000)], "c": "word" * 50_000},
]  # fmt: skip


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_what_is_large_arrives_as_it_was(remote: Any, value: Any) -> None:
    line, reply, simple = remote.Queue(), remote.Queue(), remote.SimpleQueue()
    mine, theirs = remote.Pipe()
    children = [
        remote.Process(target=targets.echo, args=(line, reply), daemon=True),
        remote.Process(target=targets.echo_on_pipe, args=(theirs,), daemon=True),
    ]
    for child in children:
        child.start()
    line.put(value)
    np.testing.assert_equal(reply.get(timeout=TIMEOUT), value)
    mine.send(value)
    assert mine.poll(TIMEOUT)
    np.testing.assert_equal(mine.recv(), value)
    if remote.place == "cluster":  # the stdlib's would wait for who reads it
        simple.put(value)
        np.testing.assert_equal(simple.get(), value)
    line.put(None)
    mine.send(None)
    for child in children:
        child.join(TIMEOUT)
    with remote.Manager() as manager:
        managed, kept = manager.Queue(), manager.dict(value=value)
        managed.put(value)
        np.testing.assert_equal(managed.get(timeout=TIMEOUT), value)
        np.testing.assert_equal(kept["value"], value)


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_it_comes_through_calls_and_back(remote: Any, value: Any) -> None:
    with remote.Pool(2) as pool:
        for back in pool.map(targets.same, [value] * 4, 1):
            np.testing.assert_equal(back, value)
        for back in pool.imap_unordered(targets.same, [[value, n] for n in range(3)]):
            np.testing.assert_equal(back[0], value)
    with lab.get_executor(remote.place, 2) as executor:
        for back in executor.map(targets.same, [value] * 3, timeout=TIMEOUT):
            np.testing.assert_equal(back, value)


@pytest.mark.parametrize("many", [10, 50_000])
def test_who_gets_an_array_may_write_to_it(remote: Any, many: int) -> None:
    array = np.zeros(many)
    with remote.Pool(1) as pool:
        for back, possible in pool.map(targets.writes, [array, array], 1):
            assert possible
            assert back.flags.writeable
            assert (back[0], array[0]) == (1, 0)
    with lab.get_executor(remote.place, 1) as executor:
        back, possible = executor.submit(targets.writes, array).result(TIMEOUT)
        assert possible
        assert back.flags.writeable


def test_a_result_is_what_it_was_when_it_was_returned(remote: Any) -> None:
    with remote.Pool(1) as pool:
        back = pool.map(targets.own, range(40), 1)
    assert [set(array) for array in back] == [{float(number)} for number in range(40)]


def test_an_exception_with_an_array_arrives(remote: Any) -> None:
    with remote.Pool(1) as pool, pytest.raises(ValueError) as caught:  # noqa: PT011 - what is in it is looked at
        pool.apply(targets.fails_with, (np.ones(50_000),))
    np.testing.assert_equal(caught.value.args[0], np.ones(50_000))


def test_who_asks_a_pipe_for_bytes_gets_a_pickle_of_what_was_sent(remote: Any) -> None:
    mine, theirs = remote.Pipe()
    child = remote.Process(target=targets.echo_on_pipe, args=(theirs,), daemon=True)
    child.start()
    for value in (np.ones(50_000), [1, 2]):
        mine.send_bytes(pickle.dumps(value))
        assert mine.poll(TIMEOUT)
        np.testing.assert_equal(pickle.loads(mine.recv_bytes()), value)
    mine.send(None)
    child.join(TIMEOUT)
