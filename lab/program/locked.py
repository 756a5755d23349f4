"""A locked set of packages: what a program needs that its hosts may lack, exactly, each file of it by its hash.

What ``uv export``, ``uv pip compile --generate-hashes`` and ``pip-compile --generate-hashes`` write: lines of
``name==version --hash=sha256:...``. Nothing else is taken, no option, no address, nothing that would have to be built: a host
installs what the index had when the set was locked, and no code of it runs before it is imported.

A host that takes such sets (``CROSSHOST_PACKAGES`` names a folder) has a folder for each, made once. A program that
goes with a set finds it before the host's own packages.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from lab.errors import CannotLoad, ExitCode, LabError

MOST = 1 << 18
"""Bytes of a set at most."""

_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][\w.-]*)(\[[\w., -]+\])?==[\w.!+]+( *;(?:(?! -)[^#\n])*)?( +--hash=sha256:[0-9a-f]{64})+"
)  # no option but the hashes, in the marker neither: pip obeys options wherever they stand in a line
_INSTALLED = ("site-packages", "dist-packages")


class NotLocked(LabError, ValueError):
    """A file is no locked set of packages."""

    exit_code = ExitCode.USAGE


def read(path: str) -> str:
    """The set in a file, a requirement a line, in order.

    Raises:
        NotLocked: There is no such file, or something in it is not locked.
    """
    try:
        return check(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise NotLocked(
            f"Cannot read {path!r}: {getattr(exc, 'strerror', exc)}.", "Name a file of requirements."
        ) from exc


def check(text: str) -> str:
    """The set in a text, a requirement a line, in order, without comments.

    Raises:
        NotLocked: Something in it is not locked, or it is empty, or larger than ``MOST``.
    """
    how = "Lock it: uv pip compile --generate-hashes requirements.in -o requirements.txt"
    if len(text) > MOST:
        raise NotLocked(f"It has more than {MOST >> 10} KB.", how)
    lines = [re.sub(r"(^| )#.*", "", line) for line in text.replace("\\\n", " ").splitlines()]
    lines = sorted({" ".join(line.split()) for line in lines} - {""})
    if wrong := next((line for line in lines if not _REQUIREMENT.fullmatch(line)), None):
        raise NotLocked(f"Not locked, by version and hash: {wrong[:120]!r}.", how)
    if not lines:
        raise NotLocked("It names no package.", how)
    return "".join(f"{line}\n" for line in lines)


def digest(text: str) -> str:
    """What a set is named by."""
    return hashlib.sha256(text.encode()).hexdigest()


def folder(packages: str, name: str) -> Path:
    """Where the packages of a set are on this host, for this Python.

    Args:
        packages: The folder of all of them.
        name: The set's digest.
    """
    return Path(packages, f"{name[:32]}-{sys.implementation.cache_tag}")


_wanted = ""


def want(text: str) -> None:
    """Have the processes of this process's program find a set."""
    global _wanted
    _wanted = text


def wanted() -> str:
    """The digest of the set that this process's program goes with; empty for none."""
    return digest(_wanted) if _wanted else ""


def names() -> list[str]:
    """The packages in it, by the names that the file gives them."""
    return [one[1] for one in map(_REQUIREMENT.match, _wanted.splitlines()) if one]


def enter(packages: str, name: str, paths: list[str]) -> list[str]:
    """Where modules are looked for by a program that goes with a set: there before what is installed on this host.

    Its ``.pth`` files are not obeyed, as they could run code in every process.

    Args:
        packages: The folder of all sets of this host.
        name: The set's digest.
        paths: Where they would be looked for without.

    Raises:
        CannotLoad: This host has not got it.
    """
    if not packages or not name.isalnum() or not (found := folder(packages, name)).is_dir():
        raise CannotLoad(
            "This host has not got the packages that the program goes with.", "Bring them: producer sync FILE"
        )
    first = next((at for at, path in enumerate(paths) if path.endswith(_INSTALLED)), len(paths))
    return [*paths[:first], str(found), *paths[first:]]
