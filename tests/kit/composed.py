"""A fleet in containers on a real engine, from a copy of the tree, under a project name, an image and a port of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.kit.ports import free_port

SHIPPED = (
    "compose.yaml",
    "compose.rtt.yaml",
    "compose.tls.yaml",
    "compose.worker.yaml",
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "uv.lock",
    "deploy",
    "examples",
    "lab",
    "worker",
    "producer",
    "course",
    "exercises",
    "monitor",
    "onloan",
)


def engine_answers() -> bool:
    try:
        return all(
            subprocess.run(["docker", *words], capture_output=True, timeout=20).returncode == 0
            for words in (["info"], ["compose", "version"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


MARKS = [
    pytest.mark.containers,
    pytest.mark.skipif(not os.environ.get("CI") and not engine_answers(), reason="no Docker engine answers"),
    pytest.mark.timeout(400),
]


def docker(*words: str, timeout: float = 30) -> str:
    """What the engine says to a command that must succeed."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=timeout).stdout


@dataclass
class Fleet:
    """One Compose project in a directory of its own."""

    directory: Path
    env: dict[str, str]
    _is_up: tuple[str, ...] = ()

    def compose(
        self, *words: str, timeout: float = 120, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        if words[0] not in ("run", "exec", "ps", "logs"):
            self._is_up = ()
        done = subprocess.run(
            ["docker", "compose", *words],
            cwd=self.directory,
            env=self.env,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def producer(self, *words: str, check: bool = True, env: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        settings = [part for setting in env for part in ("-e", setting)]
        return self.compose("run", "--rm", "-T", *settings, "producer", *words, check=check)

    def python(self, program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["docker", "compose", "run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "producer", "-c", program],
            cwd=self.directory, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def redis(self, role: str, *command: str) -> str:
        password = f'REDISCLI_AUTH="$(cat /dev/stdin)" redis-cli --no-auth-warning --user {role} '
        words = ("exec", "-T", "redis", "sh", "-c", password + '"$@"', "-", *command)
        done = self.compose(*words, input=self.secret(f"{role}_password"), check=False, timeout=30)
        return done.stdout + done.stderr

    def secret(self, name: str) -> str:
        return (self.directory / "secrets" / name).read_text()

    def script(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["sh", f"deploy/{name}", *words],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def hosts(self, service: str) -> set[str]:
        """The names under which the service's containers take work: Compose's own, as ``worker-3``."""
        return {self.host(container) for container in self.inspect(service)}

    def host(self, container: dict[str, Any]) -> str:
        return str(container["Name"]).removeprefix(f"/{self.env['COMPOSE_PROJECT_NAME']}-")

    def hostnames(self, service: str) -> set[str]:
        """What the service's containers themselves are told that they are called."""
        return {container["Config"]["Hostname"] for container in self.inspect(service)}

    def ids(self) -> set[str]:
        """The containers that are there, those of the producer's commands apart."""
        return set(self.compose("--profile", "*", "ps", "-aq").stdout.split())

    def inspect(self, service: str) -> list[dict[str, Any]]:
        ids = self.compose("ps", "-aq", service).stdout.split()
        return list(json.loads(docker("inspect", *ids)))

    def up(self, *words: str) -> None:
        """Have Redis and workers up and healthy; to look costs a second, so not again if nothing was changed since."""
        wanted = (
            "up",
            "-d",
            "--wait",
            "--no-build",
            *words,
            "redis",
            "worker",
            "jobs",
            self.env.get("COMPOSE_FILE", ""),
        )
        if self._is_up != wanted:
            self.compose(*wanted[:-1], timeout=180)
            self._is_up = wanted


def copy_of_the_tree(directory: Path) -> None:
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)


@contextmanager
def project(directory: Path, name: str, image: str) -> Iterator[Fleet]:
    """A copy of the tree as a project that is not up yet; taken down at the end, whatever happens."""
    copy_of_the_tree(directory)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CROSSHOST_", "COMPOSE_"))}
    env |= {"COMPOSE_PROJECT_NAME": name, "CROSSHOST_IMAGE": image, "CROSSHOST_PORT": str(free_port())}
    env["CROSSHOST_MONITOR_PORT"] = str(free_port())
    env["CROSSHOST_PAGE_PORT"] = str(free_port())
    fleet = Fleet(directory, env)
    try:
        yield fleet
    finally:
        fleet.compose("--profile", "*", "down", "-v", "--remove-orphans", "--rmi", "local", check=False)
