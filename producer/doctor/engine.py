"""Docker on this machine, for a fleet in containers. Who wants none need not have it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from producer.doctor.finding import Check, Finding, fine, note, wrong

ANSWERS_WITHIN = 6.0
NOT_NEEDED = "Only a fleet in containers needs it; --on cluster starts one without."
SECRETS = ("authkey", "redis_acl", "worker_password", "producer_password")


def _said(*command: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Exit code, output and complaints of a command."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=ANSWERS_WITHIN, check=False, cwd=folder,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, "", f"no answer within {ANSWERS_WITHIN:g} s"
    except OSError as exc:
        return -1, "", str(exc)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def engine(_folder: Path) -> Iterator[Finding]:
    """Whether an engine answers."""
    if shutil.which("docker") is None:
        yield note("There is no Docker here.", NOT_NEEDED, "To have one: https://docs.docker.com/engine/install/")
        return
    code, said, complaint = _said("docker", "version", "--format", "{{json .Server.Version}}")
    if code == 0 and said not in ("", "null"):
        yield fine(f"Docker's engine answers, {json.loads(said)}")
        yield from _compose()
        return
    reason = complaint.splitlines()[-1] if complaint else "it says nothing of an engine"
    if "permission denied" in complaint.lower():
        yield note(f"This user may not speak to Docker's engine: {reason}", NOT_NEEDED,
                   "sudo usermod -aG docker $USER, then log in again")  # fmt: skip
    else:
        yield note(f"Docker is installed, and its engine does not answer: {reason}", NOT_NEEDED,
                   "sudo systemctl start docker; on macOS and Windows start Docker Desktop; docker context ls shows which"
                   " engine is asked")  # fmt: skip


def _compose() -> Iterator[Finding]:
    code, said, _ = _said("docker", "compose", "version", "--short")
    if code != 0:
        yield note("Docker has no Compose.", "docker compose up starts the fleet in containers.",
                   "Install its plugin: https://docs.docker.com/compose/install/linux/")  # fmt: skip
    elif said.lstrip("v").split(".")[0] in ("0", "1"):
        yield note(f"Docker's Compose is {said}.", "compose.yaml is written for version 2 and later.",
                   "Install its plugin: https://docs.docker.com/compose/install/linux/")  # fmt: skip
    else:
        yield fine(f"Docker's Compose is {said}")


def secrets(folder: Path) -> Iterator[Finding]:
    """In the folder of compose.yaml: whether the passwords and keys were made."""
    if not (folder / "compose.yaml").is_file() or not (folder / "deploy" / "setup").is_file():
        return
    place = folder / "secrets"
    if not place.exists():
        yield note("The passwords and the key of a fleet in containers are not made yet: there is no folder secrets.",
                   "docker compose up would find none.", "sh deploy/setup")  # fmt: skip
        return
    try:
        missing = [name for name in SECRETS if not (place / name).is_file() or not (place / name).stat().st_size]
    except PermissionError:
        return  # another user's, who has seen to it
    if missing:
        yield wrong(f"In secrets/ there is nothing in: {', '.join(missing)}.",
                    "docker compose up starts nothing without them.", "sh deploy/setup")  # fmt: skip
    elif _older(place / "redis_acl", folder / "deploy" / "acl"):
        yield note("secrets/redis_acl is older than what deploy/acl says.",
                   "Redis may refuse what this version does: NOPERM.",
                   "sh deploy/setup, then: docker compose restart redis")  # fmt: skip
    else:
        yield fine("the passwords and the key of a fleet in containers are made")


def _older(made: Path, rules: Path) -> bool:
    """Whether what was made of the rules is not what they say now."""
    lines = [line.split() for line in made.read_text().splitlines() if line.startswith("user ")]
    for words in lines:
        name, kept = words[1], words[4:]
        if (rules / name).is_file():
            said = [line.partition("#")[0] for line in (rules / name).read_text().splitlines()]
            if " ".join(said).split() != kept:
                return True
    return False


CHECKS: list[Check] = [engine, secrets]
