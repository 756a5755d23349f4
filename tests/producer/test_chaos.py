"""A fleet that is broken while it works: nothing that was accepted is lost, and every call counts once."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from producer.chaos.ledger import Ledger
from producer.chaos.storm import plan
from tests.kit import variables

ENV = variables.unset()


def chaos(*options: str, timeout: float = 110, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "producer", "chaos", *options], env={**ENV, **env},
                          capture_output=True, text=True, timeout=timeout)  # fmt: skip


def test_a_storm_over_a_fleet_loses_no_call_and_counts_none_twice() -> None:
    done = chaos("--kills", "5", "--redis-restarts", "3", "--cuts", "2", "--items", "400", "--seconds", "15", "--json")
    verdict = json.loads(done.stdout)
    assert done.returncode == 0, verdict
    assert verdict["lost"] == 0
    assert verdict["done"] == verdict["accepted"] == verdict["counted by number"] == 400
    assert verdict["answered twice"] == 0
    assert verdict["blows"]["redis"] == 3
    assert sum(verdict["blows"].get(what, 0) for what in ("host", "supervisor", "forker", "process")) == 5
    assert "Traceback" not in done.stderr


def test_a_configured_fleet_is_not_broken() -> None:
    done = chaos(CROSSHOST_BROKER_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 3
    assert "env -u CROSSHOST_BROKER_URL" in done.stderr


def test_a_seed_gives_the_same_plan_again() -> None:
    assert plan(random.Random(7), 20, 10, 5, 60) == plan(random.Random(7), 20, 10, 5, 60)
    assert plan(random.Random(7), 20, 10, 5, 60) != plan(random.Random(8), 20, 10, 5, 60)


def test_the_ledger_tells_lost_from_done_twice_and_knows_when_a_blow_was_overcome() -> None:
    ledger = Ledger(4)
    pending = {7: (0, 2)}
    ledger.strike("process", {"a": {7}})
    ledger.keep(iter([0, 1]), pending)
    assert ledger.recovered(ledger.blows[0]) is None
    del pending[7]
    ledger.keep(iter([2, 2]), pending)
    assert ledger.recovered(ledger.blows[0]) is not None
    verdict = ledger.verdict(plain=6, once=4)
    assert (verdict["lost"], verdict["first lost"], verdict["done twice"], verdict["answered twice"]) == (1, [3], 2, 1)
    assert (verdict["hit again"], verdict["not recovered"]) == (0, 0)
    assert not verdict["ok"]


def test_a_call_that_a_second_blow_meets_elsewhere_counts_for_each_blow_once_and_in_all_from_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lease of one host runs out, another host takes the call and is killed at once: two leases, one after the other."""
    ledger, clock = Ledger(1), 10.0
    monkeypatch.setattr(ledger, "now", lambda: clock)
    ledger.strike("host", {"a": {7}})
    clock = 15.0
    ledger.left("a", {7})
    # b takes it between the look of who strikes and the blow; a, of an earlier host of that name, is dead by now
    ledger.strike("host", {"a": {7}, "b": set()})
    clock = 21.0
    ledger.left("b", {7})
    ledger.keep(iter([0]), {})
    assert [(blow.held, ledger.recovered(blow)) for blow in ledger.blows] == [({7}, 5.0), ({7}, 6.0)]
    verdict = ledger.verdict(plain=2, once=1)
    assert (verdict["recovery worst"], verdict["hit again"], verdict["hit again worst"]) == (6.0, 1, 11.0)


def test_a_host_that_is_killed_twice_is_no_second_blow_to_what_the_first_one_hit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its workers are listed until their leases lapse, under the name that the next host there has too."""
    ledger, clock = Ledger(1), 10.0
    monkeypatch.setattr(ledger, "now", lambda: clock)
    ledger.strike("host", {"a": {7}})
    clock = 12.0
    ledger.strike("host", {"a": {7}})
    clock = 16.0
    ledger.keep(iter([0]), {})
    assert [ledger.recovered(blow) for blow in ledger.blows] == [6.0, 4.0]
    assert ledger.verdict(plain=1, once=1)["hit again"] == 0
