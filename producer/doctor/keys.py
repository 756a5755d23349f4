"""The settings of this terminal: what the CROSSHOST_ variables say, and who else can read the secrets that they name."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import lab
from lab import secretfile
from lab.errors import BadSettings
from lab.settings import Settings
from producer.doctor.finding import Check, Finding, fine, note, wrong

SECRET_FILES = ("CROSSHOST_AUTHKEY_FILE", "CROSSHOST_PASSWORD_FILE", "CROSSHOST_PAGE_TOKEN_FILE")
FEW = 8
"""Different characters that a key has which nobody drew at random."""


@cache
def known() -> frozenset[str]:
    """The variables that anything of Crosshost reads, or its Compose files do."""
    package = Path(lab.__file__).parent
    files = [path for name in ("lab", "worker", "producer") for path in (package.parent / name).rglob("*.py")]
    files += [*package.parent.glob("compose*.yaml"), package.parent / "deploy" / "setup"]
    texts = [path.read_text(errors="replace") for path in files if path.is_file()]
    return frozenset(re.findall(r"\bCROSSHOST_[A-Z_]*[A-Z]\b", "\n".join(texts)))


def variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the variables have values that can be used, and names that are read."""
    try:
        settings = Settings.from_env(environ)
    except BadSettings as exc:
        yield wrong(exc.message, "Every command ends with it.", exc.hint)
    else:
        if not settings.broker_url:
            yield fine("CROSSHOST_BROKER_URL is not set: a command that needs a fleet starts one here for itself")
        elif not settings.authkey:
            yield wrong("CROSSHOST_BROKER_URL is set, and no authkey.",
                        "All that goes through Redis is sealed with the fleet's key; without it no program starts.",
                        "export CROSSHOST_AUTHKEY_FILE=FILE, with the key that the fleet's hosts have")  # fmt: skip
        else:
            yield fine(f"the settings can be used; the authkey's fingerprint is {settings.keyring.fingerprints()}")
    for name in sorted(environ):
        if name.startswith("CROSSHOST_") and name not in known():
            near = get_close_matches(name, known(), n=1)
            yield note(f"Nothing reads the variable {name}.", "What it was to set has its default.",
                       f"unset {name}" + (f"; was it to be {near[0]}?" if near else ""))  # fmt: skip


def secrets(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether others can read the files with secrets."""
    for name in SECRET_FILES:
        path = environ.get(name, "")
        if path and os.path.isfile(path) and os.access(path, os.R_OK):
            if secretfile.found(path):
                yield wrong(f"Other users of this machine can read {path}, which {name} names.",
                            "Whoever has the authkey or the password can run code on every host of the fleet.",
                            f"chmod 600 {shlex.quote(path)}")  # fmt: skip
            else:
                yield fine(f"nobody else can read {path}")


def strength(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the key looks as if somebody had thought it up."""
    try:
        key = Settings.from_env(
            {name: environ.get(name, "") for name in ("CROSSHOST_AUTHKEY", "CROSSHOST_AUTHKEY_FILE")}
        )
    except BadSettings:
        return
    if key.authkey and len(set(key.authkey)) < FEW:
        yield wrong(f"The authkey repeats itself: only {len(set(key.authkey))} of its {len(key.authkey)} bytes differ.",
                    "Its fingerprint stands in Redis, by which a guess can be tried without anybody's noticing.",
                    "Make one for all sides: python -c 'import secrets; print(secrets.token_hex(32))'")  # fmt: skip


def password_in_url(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the environment has Redis's password."""
    if re.match(r"\w+://[^/]*:[^/@]+@", environ.get("CROSSHOST_BROKER_URL", "")):
        yield note("CROSSHOST_BROKER_URL has Redis's password in it.",
                   "What is in the environment is seen by every child, and stays in the shell's history.",
                   "Put it into a file that is yours alone: export CROSSHOST_PASSWORD_FILE=FILE")  # fmt: skip


CHECKS: list[Check] = [secrets, variables, strength, password_in_url]
