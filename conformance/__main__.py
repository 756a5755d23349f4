"""``python -m conformance``: the scorecard of the places, and the ratchet."""

from __future__ import annotations

import json
import platform
import signal
import sys
import time
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

import click

from conformance import scorecard
from conformance.judge import Ground, Outcome, all_tests, run_class
from conformance.source import NoSuite, spec
from lab import PLACES
from lab.errors import ExitCode, LabError

TIMEOUT = 40.0


def judge(
    ground: Ground, tests: list[str], timeout: float, retries: int, verbose: bool, budget: float
) -> dict[str, Outcome]:
    """Run tests, and those that did not pass once more, each in a process of its own, if asked to.

    Once ``budget`` seconds are spent, the classes that are left are not run, and so do not pass.
    """
    end = time.monotonic() + budget
    classes: dict[str, list[str]] = {}
    for full in tests:
        kind, _, name = full.partition(".")
        classes.setdefault(kind, []).append(name)
    found: dict[str, Outcome] = {}
    for kind, names in classes.items():
        if time.monotonic() > end:
            found |= {f"{kind}.{name}": Outcome("notrun", f"after {budget:g} s") for name in names}
            continue
        for name, outcome in run_class(ground, kind, names, timeout):
            for attempt in range(2, retries + 2):
                if outcome.passed:
                    break
                ((_, again),) = run_class(ground, kind, [name], timeout)
                outcome = replace(again, attempts=attempt, why=again.why or f"at first {outcome.status}: {outcome.why}")
            found[f"{kind}.{name}"] = outcome
            _tell(ground.place, f"{kind}.{name}", outcome, verbose)
    return found


def _tell(place: str, test: str, outcome: Outcome, verbose: bool) -> None:
    if verbose or not outcome.passed or outcome.attempts > 1:
        again = f" at attempt {outcome.attempts}" if outcome.attempts > 1 else ""
        click.echo(f"{place:9} {outcome.status}{again} {outcome.seconds:.2f} s  {test}  {outcome.why[:160]}")


def chosen(ground: Ground, match: tuple[str, ...], ratchet: bool) -> tuple[list[str], int]:
    """The tests to run in a place, and how many of the suite's own are excluded."""
    known, there = scorecard.exclusions(), [f"{kind}.{test}" for kind, test in all_tests(ground)]
    applicable = [test for test in there if scorecard.exclusion_of(test, known) is None]
    excluded = len(there) - len(applicable)
    if ratchet:
        applicable = sorted(set(scorecard.ratchet()) & set(there), key=there.index)
    if match:
        applicable = [test for test in applicable if any(fnmatchcase(test, pattern) for pattern in match)]
    return applicable, excluded


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--on", "places", multiple=True, type=click.Choice(PLACES), help="A place to judge. Default: all.")
@click.option("--match", multiple=True, metavar="GLOB", help="Only tests whose Class.test matches.")
@click.option(
    "--timeout", type=click.FloatRange(3), default=TIMEOUT, show_default=True, help="Seconds without progress."
)
@click.option("--budget", type=click.FloatRange(1), default=1800, show_default=True, help="Seconds for a place.")
@click.option("--retries", type=click.IntRange(0, 3), default=1, show_default=True, help="Run again what did not pass.")
@click.option(
    "--ratchet", is_flag=True, help="Run what has passed on the cluster before; fail if it does not pass now."
)
@click.option("--accept", is_flag=True, help="Add to the ratchet what passed on the cluster.")
@click.option("--if-present", is_flag=True, help="End well where the interpreter comes without the suite.")
@click.option("--json", "json_file", type=click.File("w"), help="Write every outcome to a file.")
@click.option("-v", "--verbose", is_flag=True, help="Show the tests that pass, too.")
def main(
    places: tuple[str, ...],
    match: tuple[str, ...],
    timeout: float,
    budget: float,
    retries: int,
    ratchet: bool,
    accept: bool,
    if_present: bool,
    json_file: Any,
    verbose: bool,
) -> None:
    """Judge the contexts by CPython's own multiprocessing suite, that of the interpreter at hand."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what it started ends with it
    try:
        spec()
        places = ("cluster",) if ratchet else places or tuple(PLACES)
        results: dict[str, dict[str, Outcome]] = {}
        excluded: dict[str, int] = {}
        for place in places:
            with Ground(place) as ground:
                tests, excluded[place] = chosen(ground, match, ratchet)
                results[place] = judge(ground, tests, timeout, retries, verbose, budget)
    except LabError as exc:
        click.echo(f"conformance: {exc}", err=True)
        missing = isinstance(exc, NoSuite)
        sys.exit(ExitCode.OK if missing and if_present else ExitCode.USAGE if missing else exc.exit_code)
    _report(results, excluded)
    if json_file:
        json.dump(
            {place: {t: asdict(o) for t, o in found.items()} for place, found in results.items()}, json_file, indent=1
        )
    if accept:
        _accept(results.get("cluster", {}))
    failed = [test for found in results.values() for test, outcome in found.items() if not outcome.passed]
    if failed:
        click.echo(
            f"\n{len(failed)} did not pass" + (", which passed before" if ratchet else "") + f": {', '.join(failed)}"
        )
    sys.exit(ExitCode.CHECK_FAILED if failed else ExitCode.OK)


def _report(results: dict[str, dict[str, Outcome]], excluded: dict[str, int]) -> None:
    click.echo(f"\nCPython {platform.python_version()}, its own multiprocessing suite; passed of applicable:\n")
    click.echo(scorecard.table(results))
    for place, found in results.items():
        skips = [outcome.why for outcome in found.values() if outcome.status == "skip"]
        reasons = ", ".join(f"{why} ({skips.count(why)})" for why in sorted(set(skips)))
        skipped = f"; skipped by the suite itself: {reasons}" if skips else ""
        again = sum(outcome.attempts > 1 and outcome.passed for outcome in found.values())
        skipped += f"; {again} passed at the second attempt only" if again else ""
        click.echo(f"{place}: {excluded[place]} more do not apply (conformance/exclusions.toml){skipped}")


def _accept(found: dict[str, Outcome]) -> None:
    passed = {test for test, outcome in found.items() if outcome.status == "pass"}
    before = set(scorecard.ratchet())
    (scorecard.HERE / "cluster.txt").write_text("\n".join(sorted(before | passed)) + "\n")
    click.echo(f"{len(passed - before)} added to the ratchet")


if __name__ == "__main__":
    main()
