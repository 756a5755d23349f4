"""The bar: whatever it is put around gives what it gives without, and it shows itself to people alone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from concurrent.futures import as_completed
from typing import Any

import pytest
from rich import progress

import lab
from lab import bar
from tests.cluster.limit_targets import square
from tests.kit import variables

EXPECTED = [n * n for n in range(30)]


def test_results_are_what_they_are_without_it(ctx: Any, capfd: Any) -> None:
    with ctx.Pool(2) as pool:
        assert lab.progress(pool.map_async(square, range(30)), label="squares") == EXPECTED
        assert lab.progress(pool.apply_async(square, (3,))) == 9
        assert list(lab.progress(pool.imap(square, range(30)))) == EXPECTED
        assert sorted(lab.progress(pool.imap_unordered(square, range(30), 4), total=30)) == EXPECTED
        with pytest.raises(TypeError):
            lab.progress(pool.map_async(square, [None]))
        with pytest.raises(TypeError):
            list(lab.progress(pool.imap(square, [None])))
    with lab.get_executor(ctx.place, 2) as executor:
        assert list(lab.progress(executor.map(square, range(30)), 30)) == EXPECTED
        futures = as_completed([executor.submit(square, n) for n in range(30)])
        assert sorted(future.result() for future in lab.progress(futures, 30)) == EXPECTED
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("results", ["pool.map_async(square, range(30))", "pool.imap(square, range(30))"])
def test_on_a_terminal_it_shows_how_many_of_how_many_are_done(results: str) -> None:
    program = f"""
import lab
from tests.cluster.limit_targets import square
with lab.get_context("threads").Pool(2) as pool:
    print(list(lab.progress({results}, label="squares"))[-1])
"""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        env = {**variables.unset(), "TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=theirs, stdout=subprocess.PIPE, env=env, timeout=60, text=True
        )
        os.close(theirs)
        drawn = screen.read(1 << 16).decode()
    assert done.stdout == "841\n"
    assert "squares" in drawn
    assert "30/30" in drawn


def test_one_call_is_not_done_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[float]()
    monkeypatch.setattr(progress.Progress, "update", lambda _bar, _task, completed: seen.append(completed))
    monkeypatch.setattr(bar, "LOOK", 0.05)
    with lab.get_context("threads").Pool(1) as pool:
        lab.progress(pool.apply_async(time.sleep, (0.3,)))
    assert set(seen[:-1]) == {0}
    assert seen[-1] == 1
