"""What a program imports and a host lacks, or has in another version: told before the first call, with what to type."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lab.fleet import packages
from lab.fleet.hosts import HostInfo, Redis, list_hosts
from lab.program import imports, locked

NAMED = 3
"""Hosts that are named; of more, how many there are."""


@dataclass(frozen=True)
class Lack:
    """A difference between this Python and that of some hosts.

    Attributes:
        said: Which hosts, and both versions.
        needs: What pip is to install there; empty if that does not help.
    """

    said: str
    needs: str = ""


def minor(version: str) -> str:
    """The first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def warn(root: str, main: str | bytes, store: Redis, *kinds: str) -> None:
    """Say on standard error, in a few lines, what a fleet's hosts lack of what a program imports.

    It never ends the program: what is wrong with the fleet is said by what uses it.

    Args:
        root: The directory of the main module.
        main: What ``imports.foreign`` is to begin with.
        store: Asks the fleet's Redis.
        kinds: What else than processes it is left to (``lab.fleet.hosts``).
    """
    with suppress(Exception):  # whatever is wrong with the metadata of a package here, or with the fleet
        found = [host for kind in ("", *kinds) for host in list_hosts(store, kind)]
        hosts = list({(host.name, host.python, host.packages): host for host in found}.values())
        lacks = [*_python(hosts), *_of(lambda: imports.foreign(root, main), store, hosts)]
        for lack in lacks:
            print(f"crosshost: {lack.said}", file=sys.stderr)
        if needs := [lack.needs for lack in lacks if lack.needs]:
            print(f"  {advice(needs)}", file=sys.stderr, flush=True)


def advice(needs: Iterable[str]) -> str:
    """What to type on hosts that lack something."""
    return f"There, in the Python that runs its worker: pip install {shlex.join(dict.fromkeys(needs))}"


def of_script(script: str, store: Redis, hosts: Sequence[HostInfo]) -> list[Lack]:
    """What hosts lack of what a script imports."""
    path = os.path.realpath(script)
    return _of(lambda: imports.foreign(os.path.dirname(path), path), store, hosts)


def _python(hosts: Iterable[HostInfo]) -> list[Lack]:
    mine = platform.python_version()
    others = [host for host in hosts if host.python and minor(host.python) != minor(mine)]
    if not others:
        return []
    said = f"{_names(others)} {_verb(others, 'runs', 'run')} Python {others[0].python}, this program {mine}."
    return [Lack(f"{said} Functions need the same on both sides, up to the second number: producer doctor says more.")]


def _of(imported: Callable[[], set[str]], store: Redis, hosts: Sequence[HostInfo]) -> list[Lack]:
    mine = packages.here()
    # hosts that have the same, or say nothing of what they have, cost no further look
    asked = {host.packages for host in hosts} - {"", packages.digest(packages.written(mine))}
    there = packages.read(store, asked) if asked else {}
    if not there:
        return []
    # what goes with the program was brought to them just now, which they have not announced
    brought = set(map(packages.normal, locked.names()))
    wanted = {name: mine[name] for name in distributions(imported(), mine) - brought}
    lacks: dict[tuple[str, str], list[HostInfo]] = {}
    for host in hosts:
        for name, version in wanted.items():
            theirs = there.get(host.packages, wanted).get(name, "")
            if not theirs or not packages.alike(theirs, version):
                lacks.setdefault((name, theirs), []).append(host)
    return [_lack(name, wanted[name], theirs, others) for (name, theirs), others in sorted(lacks.items())]


def _lack(name: str, mine: str, theirs: str, hosts: list[HostInfo]) -> Lack:
    has = f"has {name} {theirs}" if theirs else f"lacks {name}"
    have = f"have {name} {theirs}" if theirs else f"lack {name}"
    said = f"{_names(hosts)} {_verb(hosts, has, have)}, which the program imports; here it is {mine}."
    return Lack(said, f"{name}=={mine}")


def _names(hosts: list[HostInfo]) -> str:
    named = ", ".join(host.name for host in hosts[:NAMED])
    word = _verb(hosts, "Host", "Hosts")
    return f"{word} {named}" + (f" and {len(hosts) - NAMED} more" if len(hosts) > NAMED else "")


def _verb(hosts: list[HostInfo], one: str, many: str) -> str:
    return one if len(hosts) == 1 else many


def distributions(modules: Iterable[str], installed: Iterable[str]) -> set[str]:
    """The distributions, by normal name, that some top-level modules are of, as far as that is known here.

    Args:
        modules: Names that are imported.
        installed: What is installed here, by normal name.
    """
    there = set(installed)
    direct = {module: packages.normal(module) for module in modules}
    found = {name for name in direct.values() if name in there}
    if others := [
        module for module, name in direct.items() if name not in there
    ]:  # PyYAML's yaml: who has it is in files
        by_module = importlib.metadata.packages_distributions()
        named = {packages.normal(name) for module in others for name in by_module.get(module, [])}
        found |= named & there
    return found
