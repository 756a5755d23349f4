"""A key that somebody else has written to: found when Redis complains, and put out of the way.

Redis says that *some* key holds the wrong kind of value, and not which. So whoever gets that reply has the types of the keys
looked at that the command may have used, then those of all keys of the run, and compares them with what belongs there. A
value of another type is of no use to anybody, and every command for the key would be refused as long as it lies there: it is
deleted, in the script that looks. What then remains is a key that is gone, which whoever waits for something in it notices
in time. A value of the right type that is not sealed, or makes no sense, is refused where it is read.

All of this costs nothing until Redis complains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import redis

from lab.errors import KeyLost
from lab.store.link import Link
from lab.store.script import translated

TYPES = """
*:swept:* list
*:room:waiters zset
*:room hash
processes zset
locks zset
keys set
graves set
swept set
taken set
round string
grace string
process:* hash
journal:* hash
grave:* hash
program:* hash
hands:* set
children:* set
ends:* set
manager:* set
luggage:* string
object:*:turn:waiters list
object:*:turn hash
object:*:refs set
object:* hash
sem:*:waiters list
sem:* hash
memory:*:ids set
memory:* string
pipe:*:holders set
pipe:*:watchers hash
pipe:* list
pool:*:seen string
pool:*:deaths hash
pool:* list
queue:*:count hash
queue:* list
hand:* list
mail:* list
bell:* list
wake:* list
condition:* list
calls:* list
answer:* list
commands:* list
"""
"""The keys of a run, and the type of each; the first line that fits."""

FLEET_TYPES = """
hosts set
hosts:* set
host:* hash
host-packages:* string
busy zset
jobs zset
job:*:tasks hash
job:*:runs:* set
job:*:handed:* set
job:*:who set
job:* hash
celery:dead list
"""
"""The same for what does not belong to a run."""

_HEAL = """
local found = redis.call('TYPE', KEYS[1])['ok']
if found == 'none' or found == ARGV[1] then return false end
redis.call('UNLINK', KEYS[1])
return found
"""

_FLEET = "crosshost:"
_TOGETHER = 200


def _pairs(lines: str) -> list[tuple[str, str]]:
    return [(pattern, kind) for pattern, kind in map(str.split, lines.strip().splitlines())]


_RUN_PAIRS, _FLEET_PAIRS = _pairs(TYPES), _pairs(FLEET_TYPES)
_ALWAYS = [name for name, _ in _RUN_PAIRS if "*" not in name]


def type_of(key: str) -> str | None:
    """The type of what belongs under a key, in Redis's words; None if the key is none of ours."""
    if not key.startswith(_FLEET):
        return None
    name, pairs = key.removeprefix(_FLEET), _FLEET_PAIRS
    if name.startswith("{"):
        name, pairs = name.partition("}:")[2], _RUN_PAIRS
    return next((kind for pattern, kind in pairs if fnmatchcase(name, pattern)), None)


def explained(error: Exception, command: tuple[Any, ...], address: str, link: Callable[[], Link]) -> Exception:
    """The lab's error for an error reply; for a key of the wrong type, one that names it, and it is out of the way.

    Args:
        error: The reply.
        command: What was asked.
        address: The server, for messages.
        link: Makes a connection to look over. Not the one that the reply came by: others may wait for theirs there.
    """
    known = translated(error)
    if not isinstance(known, KeyLost) or known.named:
        return known
    found: dict[str, str] = {}
    with suppress(redis.RedisError, OSError):
        looking = link()
        try:
            found = _looked_at(looking, _candidates(command))
        finally:
            looking.close()
    if not found:
        used = ", ".join(_ours(command)) or str(command[0])
        return KeyLost(f"Redis cannot use what lies under a key of this program: {error}. The command was for {used}.")
    were = ", ".join(f"{key} was a {kind}" for key, kind in found.items())
    return KeyLost(f"Redis at {address} held what this program did not put there: {were}. It was deleted.", named=True)


def _ours(command: Iterable[Any]) -> list[str]:
    words = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in command]
    names = [word for word in words if isinstance(word, str) and word.startswith(_FLEET) and len(word) < 512]
    return list(dict.fromkeys(names))


def _candidates(command: tuple[Any, ...]) -> list[str]:
    """The keys that a command names, and those that scripts use without being told."""
    keys = _ours(command)
    bases = {key[: key.index("}:") + 2] for key in keys if "}:" in key}
    return list(dict.fromkeys([*keys, *(base + name for base in sorted(bases) for name in _ALWAYS)]))


def _looked_at(link: Link, keys: list[str]) -> dict[str, str]:
    found = _healed(link, keys)
    for registry in [] if found else [key for key in keys if key.endswith("}:keys")]:
        link.send([("SMEMBERS", registry)])
        names = link.read()
        if isinstance(names, list):
            found |= _healed(link, [name.decode(errors="replace") for name in names])
    return found


def _healed(link: Link, keys: list[str]) -> dict[str, str]:
    """Delete those of the keys that hold what cannot be right; their names, and what they held."""
    known = [(key, kind) for key in keys if (kind := type_of(key))]
    found: dict[str, str] = {}
    for at in range(0, len(known), _TOGETHER):
        some = known[at : at + _TOGETHER]
        link.send([("EVAL", _HEAL, 1, key, kind) for key, kind in some])
        for (key, _), was in zip(some, [link.read() for _ in some], strict=True):
            if isinstance(was, bytes):
                found[key] = was.decode()
    return found
