"""What a program has changed in its environment, with which its children begin wherever they run, as spawned ones do.

What it was when the program began is the host's own matter: paths and settings of this machine mean nothing there.
"""

from __future__ import annotations

import os

OURS = "CROSSHOST_"
_before = dict(os.environ)


def begin() -> None:
    """From now on what changes is the program's."""
    global _before
    _before = dict(os.environ)


def changes() -> dict[str, str | None]:
    """The variables that the program has set, and None for those that it has removed."""
    now = dict(os.environ)
    names = {*now, *_before}
    return {name: now.get(name) for name in names if now.get(name) != _before.get(name) and not name.startswith(OURS)}


def adopt(theirs: dict[str, str | None]) -> None:
    """Begin with what a parent has changed; a child's own children begin with that too."""
    for name, value in theirs.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
