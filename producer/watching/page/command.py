"""``producer page``: what it needs, and from where it has its token."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lab.errors import BadSettings
from producer.watching.fleet import watched

NEEDS = ("starlette", "uvicorn", "sse_starlette")
TOKEN_FILE = "CROSSHOST_PAGE_TOKEN_FILE"  # noqa: S105 - the name of a variable


def show(address: str, port: int, with_faults: bool, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        BadSettings: Something is missing.
        NoWorkers: The environment points at no fleet.
        LabError: The fleet cannot be reached.
    """
    if lacks := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise BadSettings(
            f"The page's server is not installed here: {', '.join(lacks).replace('_', '-')}.",
            "Install it:\n  python -m pip install starlette uvicorn sse-starlette\n"
            "The same in the terminal, without it: producer top",
        )
    fleet = watched()
    if with_faults:
        fleet.settings.require_key()
    fleet.watcher.look()  # who cannot see anything learns why now
    from producer.watching.page import server

    server.serve(fleet, address, port, _token(), with_faults, browser)


def _token() -> str:
    path = os.environ.get(TOKEN_FILE, "")
    if not path:
        return ""
    try:
        token = Path(path).read_text().strip()
    except OSError as exc:
        raise BadSettings(f"{TOKEN_FILE}={path!r} cannot be read: {exc.strerror}.", "Make it: sh deploy/setup") from exc
    if len(token) < 16:
        raise BadSettings(f"The token in {path!r} is too short: it can be guessed.", "Make it: sh deploy/setup")
    return token
