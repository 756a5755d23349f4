"""Bringing a locked set of packages to each host of a fleet (``lab.program.locked``, ``worker.environments``)."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import Any

from lab.errors import ExitCode, LabError, NoWorkers
from lab.fleet.engine import make_app
from lab.fleet.hosts import JOBS, list_hosts
from lab.program import locked
from lab.settings import Settings
from lab.store.store import Store
from producer import output
from producer.progress import Progress

ANSWER = 5.0
"""Seconds that a host may take to answer."""

LOOK = 1.0
"""Seconds between two questions: an installation is the host's own work, and has no event here."""

PATIENCE = 1200.0
"""Seconds until a set must be everywhere."""


class NotEverywhere(LabError, RuntimeError):
    """Some hosts have not got the packages."""

    exit_code = ExitCode.CANNOT_LOAD


def show(path: str, as_json: bool) -> None:
    """Bring a set to the hosts, and write to stdout who has it.

    Raises:
        LabError: As for ``sync``.
    """
    said = sync(locked.read(path), path)
    if as_json:
        output.write_json(said)
        return
    output.write_rich([f"All have the packages of {path}: {', '.join(sorted(said))}."])


def sync(text: str, path: str) -> dict[str, dict[str, str]]:
    """Have every host of the fleet that is configured install a set; returns when all have.

    Args:
        text: The set, as ``locked.read`` gives it.
        path: Of its file, for messages.

    Returns:
        What each host says, by the name of its worker: ``host-1@crosshost``, ``host-1@jobs`` for jobs.

    Raises:
        NoWorkers: No fleet is configured, or it has no hosts.
        NotEverywhere: A host refuses, or it failed there, or it took longer than ``PATIENCE``.
    """
    settings = Settings.from_env()
    if not settings.broker_url:
        raise NoWorkers(
            "Packages are for the hosts of a fleet, and CROSSHOST_BROKER_URL names none.",
            "Without a broker, hosts are made on this machine, of this Python, and have what it has.",
        )
    store = Store(settings.broker_url)
    hosts = _workers(store)
    if not hosts:
        raise NoWorkers("No host of this fleet is alive.", "Start one: worker --slots 4")
    with closing(make_app(settings)) as app:
        said = _until_there(app, store, text, hosts)
    if wrong := [f"{name}: {_word(one)}" for name, one in sorted(said.items()) if one["state"] != "there"]:
        raise NotEverywhere(
            f"{len(wrong)} of {len(hosts)} workers have not got the packages of {path}.\n  " + "\n  ".join(wrong),
            "A host takes packages into the folder that CROSSHOST_PACKAGES names in its environment, from the index that its"
            " pip uses (docs/sync.md).",
        )
    return said


def _workers(store: Store) -> list[str]:
    """The fleet's workers: for processes, and for jobs, where what is submitted begins."""
    return [f"{host.name}@{of}" for kind, of in (("", "crosshost"), (JOBS, "jobs")) for host in list_hosts(store, kind)]


def _until_there(app: Any, store: Store, text: str, hosts: list[str]) -> dict[str, dict[str, str]]:
    progress, deadline = Progress(sys.stderr), time.monotonic() + PATIENCE
    said = ask(app, text, hosts, again=True)
    left = _installing(said)
    try:
        while left and time.monotonic() < deadline:
            progress.say(f"installing on {', '.join(left)}")
            while _installing(said) == left and time.monotonic() < deadline:
                time.sleep(LOOK)
                alive = _workers(store)
                for name, one in ask(app, text, left, again=False).items():
                    if one["state"] != "silent" or name not in alive:  # one that is only slow to answer goes on
                        said[name] = one
            left = _installing(said)
    finally:
        progress.clear()
    return said


def _installing(said: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, one in said.items() if one["state"] == "installing"]


def ask(app: Any, text: str, hosts: list[str], again: bool) -> dict[str, dict[str, str]]:
    """What workers say of a set that they are asked to have; who does not answer is silent."""
    heard: dict[str, dict[str, str]] = {}

    def on_reply(reply: dict[str, Any]) -> None:
        for name, said in reply.items():
            if isinstance(said, dict) and isinstance(said.get("state"), str):
                heard[name] = said

    app.control.broadcast("sync", {"text": text, "again": again}, destination=hosts,
                          reply=True, timeout=ANSWER, limit=len(hosts), callback=on_reply)  # fmt: skip
    return {name: heard.get(name, {"state": "silent"}) for name in hosts}


def _word(said: dict[str, str]) -> str:
    why = said.get("why", "")
    return f"{said['state']}{': ' if why else ''}{why}"
