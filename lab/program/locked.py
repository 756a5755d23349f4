"""A locked set of packages: what a program needs that its hosts may lack, exactly, each file of it by its hash.

What ``uv export``, ``uv pip compile --generate-hashes`` and ``pip-compile --generate-hashes`` write: lines of
``name==version --hash=sha256:...``. Nothing else is taken, no option, no address, nothing that would have to be built: a host
installs what the index had when the set was locked, and no code of it runs before it is imported.

A host that takes such sets (``CROSSHOST_PACKAGES`` names a folder) has an environment for each, made once. A program that
goes with a set finds it before the host's own packages.
"""

from __future__ import annotations

import hashlib
import re
import site
import sys
from pathlib import Path

from lab.errors import CannotLoad, ExitCode, LabError

MOST = 1 << 18
"""Bytes of a set at most."""

_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w., -]+\])?==[\w.!+]+( *;[^#\n]*?)?( +--hash=sha256:[0-9a-f]{64})+")

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
    lines = [re.sub(r"(^| )#.*", "", line) for line in text.replace("\\\n", " ").splitlines()]
    lines = sorted({" ".join(line.split()) for line in lines} - {""})
    how = "Lock it: uv pip compile --generate-hashes requirements.in -o requirements.txt"
    if wrong := next((line for line in lines if not _REQUIREMENT.fullmatch(line)), None):
        raise NotLocked(f"Not locked, by version and hash: {wrong[:120]!r}.", how)
    if not lines or len(text) > MOST:
        raise NotLocked("It names no package." if not lines else f"It has more than {MOST >> 10} KB.", how)
    return "".join(f"{line}\n" for line in lines)


def digest(text: str) -> str:
    """What a set is named by."""
    return hashlib.sha256(text.encode()).hexdigest()


def folder(packages: str, name: str) -> Path:
    """The environment of a set on this host, for this Python.

    Args:
        packages: The folder of all of them.
        name: The set's digest.
    """
    return Path(packages, f"{name[:32]}-{sys.implementation.cache_tag}")


_wanted = ""


def want(name: str) -> None:
    """Have the processes of this process's program find a set."""
    global _wanted
    _wanted = name


def wanted() -> str:
    """The digest of the set that this process's program goes with; empty for none."""
    return _wanted


def enter(packages: str, name: str, paths: list[str]) -> list[str]:
    """Where modules are looked for by a program that goes with a set: there before what is installed on this host.

    Args:
        packages: The folder of this host's environments.
        name: The set's digest.
        paths: Where they would be looked for without.

    Raises:
        CannotLoad: This host has not got it.
    """
    found = next(folder(packages, name).glob("lib*/python*/site-packages"), None) if packages else None
    if found is None or not name.isalnum():
        raise CannotLoad(
            "This host has not got the packages that the program goes with.", "Bring them: producer sync FILE"
        )
    before = list(sys.path)
    site.addsitedir(str(found))  # which obeys its .pth files as well
    added = [path for path in sys.path if path not in before]
    sys.path[:] = before
    want(name)
    first = next((at for at, path in enumerate(paths) if path.endswith(_INSTALLED)), len(paths))
    return [*paths[:first], *added, *paths[first:]]
