"""The Redis users of deploy/acl may call what the code calls: a command that is missing shows only when it is needed."""

from __future__ import annotations

import re

import pytest

from tests import ROOT

CALL = re.compile(r"redis\.p?call\('([A-Z]+)'")


def called(*packages: str) -> set[str]:
    """The commands of the scripts in some packages."""
    sources = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    return {command for file in sources for command in CALL.findall(file.read_text())}


@pytest.mark.parametrize(("role", "packages"), [("producer", ("lab",)), ("worker", ("lab", "worker", "onloan/src"))])
def test_a_role_may_call_every_command_of_the_scripts_that_it_sends(role: str, packages: tuple[str, ...]) -> None:
    text = "\n".join(line.partition("#")[0] for line in (ROOT / "deploy" / "acl" / role).read_text().splitlines())
    rules = re.sub(r"\(.*?\)", "", text, flags=re.DOTALL)  # what is allowed for some keys only
    allowed = {word[1:].upper() for word in rules.split() if word.startswith("+")}
    commands = called(*packages)
    assert len(commands) > 30
    assert not commands - allowed
