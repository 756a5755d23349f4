"""The hosts of the fleet that CROSSHOST_BROKER_URL leads to: whether they are there, alike, and answer."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from lab.errors import BrokerUnreachable
from lab.fleet.engine import DEAD_KEY, PROCESS_QUEUE, make_app
from lab.fleet.hosts import JOBS, HostInfo, list_hosts
from lab.settings import Settings
from lab.store.store import Store
from lab.version import __version__
from producer import lacking
from producer.doctor.broker import CLOCK_NOTED, apart
from producer.doctor.finding import Check, Finding, all_of, fine, note, wrong

ANSWER_WITHIN = 5.0
"""Seconds: a host whose cores are all taken may need some."""

MANY_WAIT = 20


@dataclass(frozen=True)
class Fleet:
    """The hosts as they announce themselves now.

    Attributes:
        settings: Of this terminal.
        store: Asks Redis.
        hosts: Those that take processes.
        job_hosts: Those that take jobs.
        script: The program whose imports are compared; empty for none.
    """

    settings: Settings
    store: Store
    hosts: list[HostInfo]
    job_hosts: list[HostInfo]
    script: str = ""


def look(settings: Settings, script: str) -> Iterator[Finding]:
    """All that can be found; nothing if Redis does not answer, of which another check tells."""
    store = Store(settings.broker_url)
    try:
        hosts, job_hosts = list_hosts(store), list_hosts(store, JOBS)
    except BrokerUnreachable:
        yield note("Which hosts there are is not known.", "Redis was not asked: see there.", "Mend that first.")
        return
    if not hosts:
        yield wrong(f"No host is alive on {store.address}.", "Nobody runs the processes of programs: NoWorkers.",
                    "On each machine, with the same settings: worker --slots 4\nIn containers: docker compose up -d, and"
                    " if they are up: docker compose logs worker")  # fmt: skip
    else:
        slots = sum(host.slots for host in hosts)
        yield fine(f"{_many(len(hosts), 'host')} with {_many(slots, 'slot')}: {', '.join(host.name for host in hosts[:8])}"
                   + (" ..." if len(hosts) > 8 else ""))  # fmt: skip
    yield from all_of(CHECKS, Fleet(settings, store, hosts, job_hosts, script))


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _named(hosts: list[HostInfo], what: str) -> str:
    """Hosts with what each says of itself: ``host-1 (0.1), host-2 (0.2)``."""
    said = list(dict.fromkeys(f"{host.name} ({getattr(host, what)})" for host in hosts))  # one takes processes and jobs
    return ", ".join(said[:5]) + (f" and {len(said) - 5} more" if len(said) > 5 else "")


def keys(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts hold this terminal's key."""
    if not fleet.settings.authkey:
        return  # named among the settings
    mine = fleet.settings.keyring.first.hex()
    others = [host for host in [*fleet.hosts, *fleet.job_hosts] if mine not in host.key.split()]
    if others:
        yield wrong(f"This terminal's key ({mine}) is not the one of {_named(others, 'key')}.",
                    "What one side seals the other cannot open: programs end with WrongKey before they begin.",
                    "Give both sides the same file: export CROSSHOST_AUTHKEY_FILE=FILE; docs/security.md says how a key"
                    " is exchanged")  # fmt: skip
    elif fleet.hosts:
        yield fine(f"they hold this terminal's key ({mine})")


def versions(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts run this version of Crosshost."""
    others = [host for host in [*fleet.hosts, *fleet.job_hosts] if host.version != __version__]
    if others:
        yield wrong(f"This is Crosshost {__version__}; another version runs on {_named(others, 'version')}.",
                    "Programs end with WrongVersion before they begin.",
                    "Bring both to the same version; in containers: docker compose build, then docker compose up -d",
                    )  # fmt: skip
    elif fleet.hosts:
        yield fine(f"they run Crosshost {__version__}")


def pythons(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts run this version of Python, as far as they say."""
    mine = platform.python_version()
    asked = [host for host in fleet.hosts if host.python]
    others = [host for host in asked if lacking.minor(host.python) != lacking.minor(mine)]
    if others:
        yield wrong(f"This is Python {mine}; another one runs on {_named(others, 'python')}.",
                    "Functions are sent as byte code that one version alone can load: their processes end at once.",
                    f"Use Python {lacking.minor(others[0].python)} here: uv venv --python {lacking.minor(others[0].python)};"
                    " or build the hosts with this one: CROSSHOST_PYTHON_IMAGE in .env")  # fmt: skip
    elif asked:
        yield fine(f"they run Python {lacking.minor(mine)}, as this terminal does")


def imports(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts have what a script imports."""
    if not fleet.script or not fleet.hosts:
        return
    found = lacking.of_script(fleet.script, fleet.store, fleet.hosts)
    for lack in found:
        yield wrong(lack.said, "There its processes end at that import, or go on with another version.",
                    lacking.advice([lack.needs]))  # fmt: skip
    if not found:
        yield fine(f"they have what {fleet.script} imports")


def room(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts have room for processes."""
    if full := [host for host in fleet.hosts if host.lacks]:
        how = wrong if len(full) == len(fleet.hosts) else note
        yield how(f"No room for one more process on {_named(full, 'lacks')}.",
                  "A start waits for a host with room, CROSSHOST_START_TIMEOUT seconds, and then is NotEnoughSlots.",
                  "producer top shows what runs there; give them memory, or start another host: worker --slots 4",
                  )  # fmt: skip


def clocks(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts' clocks agree with Redis's."""
    for host in [*fleet.hosts, *fleet.job_hosts]:
        if abs(host.clock) >= CLOCK_NOTED:
            yield from apart(f"The clock of {host.name}", host.clock)


def answers(fleet: Fleet) -> Iterator[Finding]:
    """Whether the hosts' Celery workers answer."""
    if not fleet.hosts or not fleet.settings.authkey:
        return
    mine = fleet.settings.keyring.first.hex()
    asked = [host.name for host in fleet.hosts if mine in host.key.split()]  # another key's they would ignore
    if not asked:
        return
    heard: set[str] = set()

    def on_reply(reply: dict[str, Any]) -> None:
        heard.update(name.partition("@")[0] for name in reply)

    with closing(make_app(fleet.settings)) as app:
        app.control.broadcast("ping", destination=[f"{name}@crosshost" for name in asked], reply=True,
                              timeout=ANSWER_WITHIN, limit=len(asked), callback=on_reply)  # fmt: skip
    if silent := [name for name in asked if name not in heard]:
        yield wrong(f"{', '.join(silent[:8])} did not answer within {ANSWER_WITHIN:g} s.",
                    "Its worker is stopped, or has no time to answer: its leases lapse, and its processes are lost.",
                    "On that host: look at the worker's log, and at what takes the cores (top)")  # fmt: skip
    else:
        yield fine("they answer")


def dead_letters(fleet: Fleet) -> Iterator[Finding]:
    """Whether there is what no worker will run."""
    many = int(fleet.store.call("LLEN", DEAD_KEY))
    if many:
        yield note(f"No worker will run what is in {_many(many, 'dead letter')}.",
                   "Each was a process or a chunk that did not start.",
                   "producer deadletters shows them, with the reason")  # fmt: skip


def waiting(fleet: Fleet) -> Iterator[Finding]:
    """Whether starts of processes pile up."""
    many = int(fleet.store.call("LLEN", f"crosshost:celery:{PROCESS_QUEUE}"))
    if many > MANY_WAIT:
        yield note(f"{many} starts of processes wait for a host.", "Nobody takes them, or not as fast as they come.",
                   "producer top shows who runs what; more hosts: worker --slots 4")  # fmt: skip


def jobs(fleet: Fleet) -> Iterator[Finding]:
    """Whether somebody takes jobs."""
    if fleet.hosts and not fleet.job_hosts:
        yield note("No host takes jobs.", "What producer submit leaves there waits.",
                   "worker --queues jobs,jobs.long; in containers: docker compose up -d")  # fmt: skip
    elif fleet.job_hosts:
        yield fine(f"{_many(len(fleet.job_hosts), 'host')} for jobs")


CHECKS: list[Check] = [keys, versions, pythons, imports, room, clocks, answers, waiting, dead_letters, jobs]
