"""A file with a secret, which others on this machine should not be able to read."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

_told: set[str] = set()


def warn(name: str, path: str) -> None:
    """Say so on standard error, once for each file, if others can read a file with a secret.

    Args:
        name: The setting that names it.
        path: The file, which could be read.
    """
    real = os.path.realpath(path)
    if real in _told or not found(path):
        return
    said = f"crosshost: other users of this machine can read {path}, which {name} names. Type:"
    print(f"{said}\n  chmod 600 {shlex.quote(path)}", file=sys.stderr)


def found(path: str) -> bool:
    """Whether others can read a file with a secret. Who asks tells the user: ``warn`` does not say it once more."""
    real = os.path.realpath(path)
    exposed = _exposed(Path(real))
    if exposed:
        _told.add(real)
    return exposed


def _exposed(file: Path) -> bool:
    """Whether its group or everybody may read a file, and enter all folders that it lies in.

    Not what lies on a read-only mount, as a container's secrets do: nobody can change its mode there, and whoever mounted it
    has seen to who gets there.
    """
    try:
        if os.statvfs(file).f_flag & os.ST_RDONLY:
            return False
        mode = file.stat().st_mode
        group, others = bool(mode & 0o040), bool(mode & 0o004)
        for folder in file.parents:
            mode = folder.stat().st_mode
            group, others = group and bool(mode & 0o011), others and bool(mode & 0o001)
    except OSError:
        return False  # it was exchanged just now
    return group or others
