"""The packages that a host's Python has, as the host announces them, so that a program knows what it will find there.

Names and versions are those of the folders that installers leave beside what they installed (``NAME-VERSION.dist-info``): to
read them takes a millisecond or two, to read what lies in them a hundred times as much.

On Redis: string ``crosshost:host-packages:DIGEST``, the list as JSON, the same for all hosts that have the same packages; it
lives for ten leases, and is renewed as the announcement is that names its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from lab.fleet.hosts import Redis

MOST = 4000
"""Packages that a host announces; of more, the first ones by name."""

BYTES = 1 << 18
"""Bytes of a list that are read at most: whoever may write to Redis may have written it."""

_FOLDER = re.compile(r"([A-Za-z0-9][\w.]*)-([\w.!+]+?)(?:-py[\d.]+)?\.(?:dist-info|egg-info)")
_VERSION = re.compile(r"(?:\d+!)?(\d+)(?:\.(\d+))?")
_WORD = re.compile(r"[\w.!+-]{1,100}")


def normal(name: str) -> str:
    """A distribution's name as it is compared (PEP 503): ``Ruamel.Yaml`` and ``ruamel-yaml`` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def here(paths: Iterable[str] | None = None) -> dict[str, str]:
    """Version by normal name of what is installed where this Python looks for modules; what it finds first counts.

    Args:
        paths: Folders, ``sys.path`` when None.
    """
    found: dict[str, str] = {}
    for path in sys.path if paths is None else paths:
        try:
            names = sorted(os.listdir(path or os.curdir))
        except OSError:
            continue
        for parts in filter(None, map(_FOLDER.fullmatch, names)):
            found.setdefault(normal(parts[1]), parts[2])
    return dict(sorted(found.items())[:MOST])


def written(packages: Mapping[str, str]) -> str:
    """The list as it lies in Redis: the same packages make the same text."""
    return json.dumps(sorted(packages.items()), separators=(",", ":"))


def digest(text: str) -> str:
    """What a list is named by."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key(name: str) -> str:
    """The key of the list with this digest."""
    return f"crosshost:host-packages:{name}"


def read(store: Redis, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The lists with these digests, as far as they are there and are what their digests say."""
    wanted = sorted({name for name in names if name})
    if not wanted:
        return {}
    texts = store.pipeline([("GETRANGE", key(name), 0, BYTES) for name in wanted])
    found = ((name, _parsed(name, text)) for name, text in zip(wanted, texts, strict=True))
    return {name: packages for name, packages in found if packages is not None}


def _parsed(name: str, text: bytes) -> dict[str, str] | None:
    """The list; None for what no host has written."""
    try:
        said = text.decode()
        pairs: Any = json.loads(said) if digest(said) == name else []
        packages = {str(package): str(version) for package, version in pairs}
    except (ValueError, TypeError, RecursionError):
        return None
    words = [word for pair in packages.items() for word in pair]
    return packages if packages and all(map(_WORD.fullmatch, words)) else None


def alike(one: str, other: str) -> bool:
    """Whether two versions have the same first two numbers; those without any are alike if they are the same text."""
    first, second = _VERSION.match(one), _VERSION.match(other)
    if first is None or second is None:
        return one == other
    return [int(part or 0) for part in first.groups()] == [int(part or 0) for part in second.groups()]
