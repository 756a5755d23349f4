"""``producer breakeven``: the model by itself, and what it says beside what happens in each place."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from lab.errors import ExitCode
from lab.program.target import Target
from producer.breakeven import command, model, probe, report, trial
from producer.breakeven.found import Found
from producer.breakeven.model import Costs, Spread, Work
from producer.machine import Machine
from producer.output import write_rich
from producer.progress import Progress
from tests.producer.test_cli import Shell, shell

__all__ = ["shell"]


def wait(_item: Any) -> None:
    time.sleep(0.004)


def one(value: float) -> Spread:
    return Spread(value, value, value)


def costs(power: float, cores: float = 64.0) -> Costs:
    """A place where a message costs 90 us, an item in it 10 us, and 4 workers 0.3 s to start."""
    return Costs(
        "somewhere", one(5e-4), one(1e-4), one(1e-5), one(1e-2), one(0), one(0), {4: one(0.3)}, {4: one(power)}, cores
    )


def gained(power: float, t: float, chunk: int, n: int = 1000, start: float = 0.0) -> float:
    """Seconds that workers save by the formula of the docstring, written out."""
    return n * t - (start + n * (1e-5 + 9e-5 / chunk + t / power))


@pytest.mark.parametrize("power", [1.2, 2.0, 3.9])
def test_what_is_a_little_longer_than_the_break_even_wins_and_what_is_shorter_loses(power: float) -> None:
    for chunk in (1, 7, 1000):
        item = model.shortest_item(costs(power), 4, chunk)
        assert item
        assert gained(power, item * 1.01, chunk) > 0 > gained(power, item * 0.99, chunk)
        found = model.smallest_chunk(costs(power), 4, item * 1.01)
        assert found
        assert found <= chunk
        assert gained(power, item * 1.01, found) > 0
        assert found == 1 or gained(power, item * 1.01, found - 1) < 0
    work = model.least_work(costs(power), 4)
    assert work
    assert gained(power, work / 10, 10**9, n=10, start=0.3) == pytest.approx(-1e-4, abs=1e-6)


def test_where_workers_are_no_faster_together_they_never_win() -> None:
    for place in (costs(1.0), costs(0.7), costs(3.0, cores=1)):
        assert model.shortest_item(place, 4, 1) is None
        assert model.shortest_item(place, 4, None) is None
        assert model.smallest_chunk(place, 4, 10.0) is None
        assert model.least_work(place, 4) is None
    noisy = replace(costs(1.3), power={4: Spread(1.3, 0.8, 2.1)})
    assert model.shortest_item(noisy, 4, 1) is None


def test_workers_that_wait_need_no_cores() -> None:
    assert model.shortest_item(costs(1.0, cores=1), 4, 1, computing=0.0) == pytest.approx(1e-4 * 4 / 3)
    half = Work(100, one(0.01), computing=0.5)
    assert model.predict(costs(1.0, cores=1), half, 4, 1000).median == pytest.approx(2.0, rel=0.01)


def test_no_speed_up_is_predicted_above_the_cores() -> None:
    assert model.predict(costs(3.9, cores=2), Work(100, one(1.0)), 4, 1).median == pytest.approx(2.0, rel=0.01)


def test_data_that_travels_counts() -> None:
    light, heavy = (model.predict(costs(4.0), Work(100, one(0.01), 1.0, mb), 4, 1).median for mb in (0.0, 1.0))
    assert heavy < 1 < light


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WORKERS", (2,))
    monkeypatch.setattr(probe, "ROUNDS", 3)


@pytest.mark.usefixtures("brief")
def test_the_prediction_comes_near_what_happens_in_each_place(ctx: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Items that wait are predicted well on any machine, however busy; so the bound can be close enough to mean something."""
    target = Target("tests.producer.test_breakeven", "wait")
    found = command._measure({ctx.place: ctx}, [target], list(range(100)), Progress(None))
    (tried,) = found.trials[str(target)]
    assert found.works[str(target)].computing < 0.5
    assert 1.2 < tried.predicted.median <= 2
    assert tried.predicted.median / 1.6 < tried.measured.median < tried.predicted.median * 1.6
    place = found.costs[ctx.place]
    assert 0 < place.item.median < min(place.single.median, place.call.median) < 1
    assert found.machines[ctx.place] == 1  # the hosts of the embedded fleet share this machine
    assert found.cores[ctx.place] == found.machine.cores
    if ctx.place == "threads" and found.machine.gil:
        assert model.shortest_item(place, 2, 1) is None
    written = json.loads(json.dumps(command.to_json(found)))
    assert written["places"][ctx.place]["break_even"]["2"]["waiting_item"] > 0
    write_rich(report.report(found))
    assert "for items that wait, from" in " ".join(capsys.readouterr().out.split())


def test_items_can_come_from_a_file(shell: Shell) -> None:
    path = f"{shell.tmp}/items.jsonl"
    with open(path, "w") as file:
        file.write('{"n": 1}\nnot json\n{"n": 2}\n')
    assert command._items(path, Target("json", "dumps")) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["tests.mapping.map_targets:pickie"], "Did you mean picky?"),
        (["tests.mapping.map_targets:length"], "--input FILE"),
        (["--input", "/nowhere/at.all"], "No such file"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(shell: Shell, args: list[str], told: str) -> None:
    done = shell.run("breakeven", *args, "--on", "threads")
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_long_item_is_not_run_over_and_over() -> None:
    begun: list[float] = []

    def long(_item: Any) -> None:
        begun.append(time.monotonic())
        time.sleep(0.15)

    work, items = trial.serial(long, range(1000))
    assert work.items == len(items) == trial.FEWEST_ITEMS
    assert len(begun) <= 10


def test_the_machine_is_told_with_the_numbers() -> None:
    found = Found(Machine.here(), {"threads": 2}, {"threads": 1}, {"threads": costs(1.0)})
    assert str(report.report(found)[0]).startswith(found.machine.python)
