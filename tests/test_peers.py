"""The benchmark beside other libraries, with those that need nothing installed."""

from __future__ import annotations

import pytest

from benchmarks.peers.__main__ import measure, table
from benchmarks.peers.peers import PEERS
from benchmarks.peers.works import ROWS

NAMES, ROUNDS = ["multiprocessing.Pool", "ProcessPoolExecutor"], 2


def test_each_library_is_measured_in_each_round_and_what_one_cannot_do_is_said() -> None:
    rows = ["one call", "queue"]
    found = measure(NAMES, rows, ROUNDS)
    assert {(each.peer, each.row): len(each.values) for each in found} == {
        ("multiprocessing.Pool", "one call"): ROUNDS,
        ("multiprocessing.Pool", "queue"): ROUNDS,
        ("ProcessPoolExecutor", "one call"): ROUNDS,
        ("ProcessPoolExecutor", "queue"): 0,
    }
    assert all(value > 0 for each in found for value in each.values)
    said = table(found, NAMES, rows)
    assert "| | one call, ms | queue, messages/s |" in said
    assert "ProcessPoolExecutor, queue: an executor has no queue." in said


def test_what_is_installed_is_of_one_version() -> None:
    packages = [package for needed, _ in PEERS.values() for package in needed]
    assert packages
    assert all("==" in package for package in packages)
    assert all(unit for unit, _ in ROWS.values())


def test_a_library_that_does_not_answer_ends_the_run_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.__main__.PATIENCE", 0.001)
    with pytest.raises(SystemExit, match=r"multiprocessing.Pool has not answered"):
        measure(NAMES[:1], ["one call"], 1)
