"""The command: a fleet of its own, work on it, a storm, a tally, and the verdict."""

from __future__ import annotations

import random
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import lab
from lab.errors import BadSettings, ExitCode
from lab.settings import Settings
from lab.store.store import Store
from producer import output
from producer.chaos import load
from producer.chaos.ledger import Ledger
from producer.chaos.storm import Storm, plan
from producer.progress import Progress
from producer.recording import Recording

HOSTS, SLOTS, WORKERS = 3, 8, 8
PATIENCE = 120.0
"""Seconds, beyond the storm's, in which everything has to come to its end."""


def run(
    kills: int,
    restarts: int,
    cuts: int,
    items: int,
    seconds: float,
    seed: int | None,
    as_json: bool,
    recording: Recording,
) -> int:
    """Run the storm over the work; print the ledger.

    Returns:
        0 if nothing was lost and the counting by number is exact, else 1.

    Raises:
        BadSettings: A fleet is configured: this command breaks what it runs on, and breaks only its own.
    """
    settings = Settings.from_env()
    if settings.broker_url:
        raise BadSettings(
            "CROSSHOST_BROKER_URL names a fleet, and chaos kills the fleet that it runs on: it starts one of its own.",
            "Run it without: env -u CROSSHOST_BROKER_URL producer chaos",
        )
    seed = random.randrange(1 << 30) if seed is None else seed
    progress = Progress(sys.stderr)
    progress.say(f"seed {seed}: starting a fleet of {HOSTS} hosts ...")
    ctx = lab.get_context("cluster")
    ctx.settings, ctx.durable, ctx.tell = replace(settings, hosts=HOSTS, slots=SLOTS), True, False
    with ctx:
        ctx.connect()
        with recording.around(ctx, "chaos") as around:
            verdict = _storm(around, random.Random(seed), kills, restarts, cuts, items, seconds, progress, recording)
    progress.clear()
    verdict["seed"] = seed
    recording.write(told="; ".join(_lines(verdict)))
    if as_json:
        output.write_json(verdict)
    else:
        _show(verdict)
    return 0 if verdict["ok"] else int(ExitCode.CHECK_FAILED)


def _storm(
    ctx: Any,
    dice: random.Random,
    kills: int,
    restarts: int,
    cuts: int,
    items: int,
    seconds: float,
    progress: Progress,
    recording: Recording,
) -> dict[str, Any]:
    plain, once = ctx.Value("q", 0), ctx.Value("q", 0)
    pool = ctx.Pool(WORKERS, load.use, (plain, once))
    mean = seconds * WORKERS / items
    calls = [(number, dice.uniform(0.5, 1.5) * mean) for number in range(items)]
    ledger = Ledger(items, lambda blow: recording.note("broken", name=blow.what))
    answers = pool.imap_unordered(load.work, calls)
    reader = threading.Thread(target=ledger.keep, args=(answers, pool._calls.pending), daemon=True)
    reader.start()
    storm = Storm(dice, Store(ctx.settings.broker_url), pool, ledger)
    _break(storm, plan(dice, kills, restarts, cuts, seconds), ledger, progress)
    deadline = time.monotonic() + seconds + PATIENCE
    while reader.is_alive() and time.monotonic() < deadline:
        reader.join(0.5)
        progress.tick(_tally(ledger))
    verdict = ledger.verdict(plain.value, once.value)
    pool.terminate()
    pool.join()
    return verdict


def _break(storm: Storm, blows: list[tuple[float, str]], ledger: Ledger, progress: Progress) -> None:
    for at, what in blows:
        while True:
            while (left := at - ledger.now()) > 0 and ledger.done < ledger.accepted:
                time.sleep(min(left, 0.5))
                progress.tick(_tally(ledger))
            if ledger.done >= ledger.accepted:
                return
            if storm.strike(what):
                break
            at = ledger.now() + 0.3  # Redis is away, or nobody is there to be hit: a little later


def _tally(ledger: Ledger) -> str:
    return f"{ledger.now():5.1f} s  {ledger.done} of {ledger.accepted} calls done, {len(ledger.blows)} blows"


def _show(verdict: dict[str, Any]) -> None:
    output.write("".join(f"{line}\n" for line in _lines(verdict)))


def _lines(verdict: dict[str, Any]) -> list[str]:
    blows = ", ".join(f"{count} {what}" for what, count in sorted(verdict["blows"].items())) or "none"
    return [
        f"seed {verdict['seed']}, {verdict['seconds']} s; blows: {blows}",
        f"accepted           {verdict['accepted']}",
        f"done               {verdict['done']}",
        f"lost               {verdict['lost']}",
        f"done twice         {verdict['done twice']}   (counted plainly: {verdict['counted plainly']})",
        f"counted by number  {verdict['counted by number']}",
        f"answered twice     {verdict['answered twice']}",
        f"recovery           median {verdict['recovery median']} s, worst {verdict['recovery worst']} s"
        f"; not within the run: {verdict['not recovered']}",
        *_hit_again(verdict),
        *(f"error              {error}" for error in verdict["errors"]),
        "nothing was lost, and every call counts once" if verdict["ok"] else "SOMETHING WAS LOST OR COUNTED WRONG",
    ]


def _hit_again(verdict: dict[str, Any]) -> list[str]:
    calls = verdict["hit again"]
    return [f"hit again          {calls}   (worst {verdict['hit again worst']} s from the first blow)"] if calls else []
