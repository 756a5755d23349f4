"""What this host was asked to install: a folder for each locked set of packages (``lab.program.locked``).

It is filled under another name, by the pip of a virtual environment that goes again, and renamed when it is whole, so that a
process finds all of it or nothing. Hosts that share the folder wait for each other by a lock on a file in it, and the second
one finds it made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from celery.worker.control import control_command

from lab.errors import LabError
from lab.program import locked

BOUND = 600.0
"""Seconds that one step of an installation may take."""

_QUIETLY = ("--no-input", "--quiet", "--disable-pip-version-check")


class Environments:
    """What this worker was asked to install, since it started.

    Args:
        packages: The folder; empty if this host takes no packages.
    """

    def __init__(self, packages: str) -> None:
        self._packages = packages
        self._lock = threading.Lock()
        self._working: set[str] = set()
        self._failed: dict[str, str] = {}

    def ask(self, text: str, again: bool) -> dict[str, str]:
        """Have a set installed, unless it is; returns at once.

        Args:
            text: The set.
            again: Whether one that failed is tried once more.

        Returns:
            ``state``: there, installing, failed or refused; and ``why``, of the last two.
        """
        if not self._packages:
            return {"state": "refused", "why": "it takes no packages: CROSSHOST_PACKAGES names no folder there"}
        try:
            name = locked.digest(text := locked.check(text))
        except LabError as exc:
            return {"state": "refused", "why": exc.message}
        with self._lock:  # excluded: two requests that both begin
            if name in self._working:
                return {"state": "installing"}
            if locked.folder(self._packages, name).is_dir():
                return {"state": "there"}
            if name in self._failed and not again:
                return {"state": "failed", "why": self._failed[name]}
            self._working.add(name)
        threading.Thread(target=self._install, args=(name, text), name="installing packages", daemon=True).start()
        return {"state": "installing"}

    def _install(self, name: str, text: str) -> None:
        why = "it broke off"
        try:
            make(locked.folder(self._packages, name), text)
            why = ""
        except subprocess.TimeoutExpired:
            why = f"it took more than {BOUND:g} s"
        except subprocess.CalledProcessError as exc:
            why = _told(exc.stdout) or f"exit code {exc.returncode}"
        except Exception as exc:  # noqa: BLE001 - whoever asked for it is told, and not left waiting
            why = str(exc)
        finally:
            with self._lock:
                self._working.discard(name)
                self._failed.pop(name, None)
                if why:
                    self._failed[name] = why


def _told(output: str) -> str:
    """What went wrong, of all that pip has written."""
    at = output.find("ERROR:")
    return " ".join(output[max(at, 0) :].split())[:500]


def make(made: Path, text: str) -> None:
    """Make a folder with a set in it.

    Raises:
        subprocess.CalledProcessError: What was run could not; ``stdout`` has why.
        subprocess.TimeoutExpired: It took too long.
        OSError: There is no room, or no such folder.
    """
    made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock, part = made.with_name(f"{made.name}.lock"), made.with_name(f"{made.name}.part")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # freed by the kernel when this process ends, however it does
        if made.is_dir():  # excluded: two hosts that share the folder both installing
            return
        shutil.rmtree(part, ignore_errors=True)  # of one that was killed: pip would take it for installed
        try:
            part.mkdir(mode=0o700)
            (part / "requirements.txt").write_text(text)
            _run([sys.executable, "-m", "venv", str(part / "tools")])
            pip = [
                str(part / "tools" / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--require-hashes",
                "--no-deps",
                *_QUIETLY,
            ]
            _run([*pip, "--only-binary=:all:", "--target", str(part / "made"), "-r", str(part / "requirements.txt")])
            (part / "made").rename(made)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CROSSHOST_")}
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=BOUND,
        check=True,
        env=environ,
    )


_here = Environments("")


def take_into(packages: str) -> None:
    """Say where this host's packages go: into this folder; empty to take none."""
    global _here
    _here = Environments(packages)


@control_command(args=[("text", str), ("again", bool)])
def sync(_worker: Any, text: str, again: bool = False) -> dict[str, str]:
    """Have a locked set of packages installed on this host (``producer sync``)."""
    return _here.ask(str(text), bool(again))
