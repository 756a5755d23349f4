"""Keys of programs and of the fleet are deleted and overwritten at random; nobody waits for ever, and the fleet serves on.

python -m faults.keys --seed 7 --blows 300
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import redis

from lab.fleet.embedded import EmbeddedFleet
from lab.settings import Settings
from tests.kit.variables import unset

HOSTS, SLOTS, JOB_SLOTS = 3, 6, 1
BOUND = 120.0
"""Seconds in which a program that was told to stop must have ended: each of its waits 30, and it makes a few in turn."""

WORDS = (b"x", b"", b"-1", b"nan", b"9" * 30, b"[" * 40, b"\0" * 16, b"crosshost", b'{"a": 1}')


def blow(client: Any, dice: random.Random, keys: list[bytes]) -> str:
    """Delete a key, or put something else there; what was done."""
    key = dice.choice(keys)
    kind = dice.choice(("delete", "delete", "string", "list", "set", "zset", "hash"))
    word, other = dice.choice(WORDS), dice.choice(WORDS)
    pipe = client.pipeline().delete(key)
    if kind == "string":
        pipe.set(key, word)
    elif kind == "list":
        pipe.rpush(key, word, other)
    elif kind == "set":
        pipe.sadd(key, word, other)
    elif kind == "zset":
        pipe.zadd(key, {word: dice.choice((0, -1, 2**40, 9e15))})
    elif kind == "hash":
        pipe.hset(key, dice.choice((word, b"state", b"value", b"seen", b"grace", b"running", b"parent")), other)
    pipe.execute()
    return kind


class Program:
    """A program on the fleet (``faults.prey``)."""

    def __init__(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "faults.prey"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process: Any = subprocess.Popen(command, env=env, text=True, **pipes)  # type: ignore[call-overload]
        ready, _, _ = select.select([self._process.stdout], [], [], BOUND)
        self.run = self._process.stdout.readline().strip() if ready else ""

    @property
    def ended(self) -> bool:
        """Whether it has given up by itself."""
        return bool(select.select([self._process.stdout], [], [], 0)[0]) or self._process.poll() is not None

    def stop(self) -> tuple[dict[str, Any], list[str]]:
        """Tell it to come to its end; what it says, and what is wrong with that."""
        try:
            out, err = self._process.communicate("stop\n", timeout=BOUND)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, err = self._process.communicate()
            return {}, [f"the program had not ended after {BOUND:g} s", err[-2000:]]
        try:
            said = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            return {}, [f"the program ended with {self._process.returncode}", err[-2000:]]
        faults = [*said["wrong"], *(f"{name} never ended" for name in said["left"])]
        faults += [line for line in err.splitlines() if "Exception in thread" in line or "ResponseError" in line]
        if faults:
            faults.append(err[-4000:])
        return said, faults


def parts(pid: int) -> dict[int, str]:
    """The processes of a fleet that must outlive all of this: hosts, supervisors, forkers, Valkey; by process id."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            state = (directory / "stat").read_text().rpartition(")")[2].split()
            command = (directory / "comm").read_text().strip()
        except OSError:
            continue
        found[int(directory.name)] = (int(state[1]), command)
    depth = {pid: 0}
    for _ in range(3):  # the fleet's hosts and Valkey; supervisors; forkers
        depth |= {each: depth[parent] + 1 for each, (parent, _) in found.items() if parent in depth and each not in depth
                  and depth[parent] < 3}  # fmt: skip
    return {each: f"{found[each][1]} at depth {deep}" for each, deep in depth.items() if each in found}


def storm(seed: int, blows: int) -> list[str]:
    """The faults that were found with a seed."""
    dice, kinds = random.Random(seed), Counter[str]()
    faults: list[str] = []
    settings = Settings.from_env({"CROSSHOST_LEASE": "6", "CROSSHOST_HOSTS": str(HOSTS), "CROSSHOST_SLOTS": str(SLOTS)})
    fleet = EmbeddedFleet(settings, job_slots=JOB_SLOTS, tell=False)
    try:
        there = fleet.start()
        env = {**unset(), "CROSSHOST_BROKER_URL": there.broker_url, "CROSSHOST_AUTHKEY": there.authkey.decode(),
               "PYTHONPATH": os.getcwd()}  # fmt: skip
        client: Any = redis.Redis.from_url(there.broker_url)
        root = fleet.pid or 0
        before = parts(root)
        programs = 0
        while sum(kinds.values()) < blows and not faults:
            program = Program(env)
            programs += 1
            deadline = time.monotonic() + 60
            while sum(kinds.values()) < blows and not program.ended and time.monotonic() < deadline:
                time.sleep(dice.uniform(0, 0.3))
                # the keys of the programs before expire by themselves
                keys = [key for key in client.scan_iter("crosshost:*", 1000)
                        if b"{" not in key or program.run.encode() in key]  # fmt: skip
                if keys:
                    kinds[blow(client, dice, sorted(keys))] += 1
            said, found = program.stop()
            faults += found
            _show(programs, said)
        click.echo(f"seed {seed}: {dict(kinds)} over {programs} programs")
        gone = {pid: what for pid, what in before.items() if pid not in parts(root)}
        faults += [f"{what} ({pid}) is dead" for pid, what in gone.items()]
        time.sleep(settings.lease)  # a fleet says three times a lease that it is there
        faults += _serves(env)
        if faults:
            for log in Path(fleet.directory).glob("host*.log"):
                _, found_one, last = log.read_text(errors="replace").rpartition("Traceback")
                faults += [f"{log.name}: {found_one}{last[:3000]}"] if found_one else []
    finally:
        fleet.stop()
    return faults


def _show(number: int, said: dict[str, Any]) -> None:
    click.echo(f"  program {number}: worked {said.get('worked')}")
    for name, errors in said.get("errors", {}).items():
        for error, times in errors.items():
            click.echo(f"    {name}: {times} x {error}")


def _serves(env: dict[str, str]) -> list[str]:
    """What is wrong with a program that nobody disturbs."""
    program = Program(env)
    time.sleep(8)
    said, faults = program.stop()
    errors = {name: each for name, each in said.get("errors", {}).items() if each}
    if errors:
        faults.append(f"the next program met {errors}")
    silent = set(said.get("errors", {})) - set(said.get("worked", {}))
    if silent:
        faults.append(f"in the next program nothing came of {silent}")
    return faults


@click.command()
@click.option("--blows", default=300, show_default=True, help="Deletions and overwrites.")
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    help="Of an earlier run, to repeat its choices; several are run in turn.",
)
def main(blows: int, seeds: tuple[int, ...]) -> None:
    faults = []
    for seed in seeds or (random.randrange(1 << 30),):
        click.echo(f"seed {seed}")
        found = storm(seed, blows)
        for fault in found:
            click.echo(f"  FAULT {fault}")
        faults += found
    click.echo("nobody waited for ever, and the fleet serves on" if not faults else f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
