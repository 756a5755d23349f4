"""The doctor: what is wrong is caused, and must be named with what to type; and looking changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode
from producer.doctor import allowed, engine, machine
from producer.doctor.finding import FINE, NOTE, WRONG
from tests import ROOT
from tests.fleet.test_acl import called
from tests.kit import variables
from tests.kit.ports import free_port
from tests.kit.processes import die_with_us
from tests.kit.server import KEY, Server
from tests.kit.wait import until

OTHER = "fedcba9876543210" * 4
Findings = list[dict[str, str]]


def doctor(*args: str, code: str = "", **env: str) -> tuple[int, Findings]:
    """Its exit code and findings, with ``code`` run before it."""
    start = ["-c", f"import sys\n{code}\nfrom producer.__main__ import main\nmain()"] if code else ["-m", "producer"]
    done = subprocess.run(
        [sys.executable, *start, "doctor", "--json", *args], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        env={**variables.unset(), "PYTHONPATH": str(ROOT), **env}, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


def named(findings: Findings, level: str, words: str) -> dict[str, str]:
    """The one finding of a level that has some words in it; with a reason and advice, if it is not fine."""
    (found,) = [one for one in findings if one["level"] == level and words in one["what"]]
    assert level == FINE or (found["why"] and found["do"])
    return found


def leading_to(server: Server, **more: str) -> dict[str, str]:
    return {"CROSSHOST_BROKER_URL": server.url, "CROSSHOST_AUTHKEY": KEY, **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("fleet"), "--maxmemory", "1gb", hosts=1) as server:
        yield server


def add_host(server: Server, name: str, code: str = "", **env: str) -> subprocess.Popen[bytes]:
    """One more host, with ``code`` run before it, which announces itself."""
    start = f"{code}\nfrom worker.__main__ import main\nmain()"
    with open(server.directory / f"{name}.log", "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", start, "--name", name], env={**server.env, **env}, stdout=log, stderr=log,
            preexec_fn=die_with_us,
        )  # fmt: skip
    until(lambda: server.client.exists(f"crosshost:host:{name}"), f"{name} is there", 30)
    return worker


def take_away(server: Server, worker: subprocess.Popen[bytes], name: str) -> None:
    worker.kill()
    worker.wait(10)
    server.client.delete(f"crosshost:host:{name}")


# --- a fleet as it should be ----------------------------------------------------------------------------------------


def test_a_fleet_as_it_should_be_has_nothing_wrong_and_is_as_it_was(server: Server) -> None:
    before = set(server.client.scan_iter())
    code, findings = doctor(**leading_to(server))
    assert [one for one in findings if one["level"] == WRONG] == []
    assert code == ExitCode.OK
    for words in ("1 host with 4 slots", "they answer", "may do all", "evicts nothing", "append-only file"):
        named(findings, FINE, words)
    # Celery's own keys come and go: the hosts' leases, and a mailbox for answers, as any ping has one
    after = {key for key in server.client.scan_iter() if not key.startswith(b"crosshost:celery:")}
    assert after <= before


def test_without_a_fleet_the_machine_is_looked_at() -> None:
    code, findings = doctor()
    assert code == ExitCode.OK
    named(findings, FINE, "CROSSHOST_BROKER_URL is not set")
    named(findings, FINE, "is here for an embedded fleet")
    assert {one["part"] for one in findings} == {"this machine", "settings", "Docker"}


def test_people_read_it_in_words_and_quietly_only_what_matters(server: Server) -> None:
    env = {**variables.unset(), **leading_to(server, CROSSHOST_AUTHKEY=OTHER), "COLUMNS": "80"}
    command = [sys.executable, "-m", "producer", "doctor", "-q"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.CHECK_FAILED
    assert "  WRONG This terminal's key" in done.stdout
    assert (
        "          Give both sides the same file: export CROSSHOST_AUTHKEY_FILE=FILE; docs/security.md says how a key"
        in done.stdout
    )
    assert " fine " not in done.stdout.rpartition("\n1 wrong")[0]


# --- the settings ---------------------------------------------------------------------------------------------------


def test_a_setting_that_cannot_be_used_and_one_that_nobody_reads_are_named() -> None:
    code, findings = doctor(CROSSHOST_HOSTS="many", CROSSHOST_BROKR_URL="redis://x")
    assert code == ExitCode.CHECK_FAILED
    assert "unset CROSSHOST_HOSTS" in named(findings, WRONG, "CROSSHOST_HOSTS is 'many'")["do"]
    assert "CROSSHOST_BROKER_URL" in named(findings, NOTE, "Nothing reads the variable CROSSHOST_BROKR_URL")["do"]


def test_a_key_file_that_others_may_read_is_named_once() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is one that others may not enter
        file = Path(folder, "authkey")
        file.write_text(KEY)
        Path(folder).chmod(0o755)
        file.chmod(0o644)
        code, findings = doctor(CROSSHOST_AUTHKEY_FILE=str(file))  # nothing on stderr: it is not said twice
        assert code == ExitCode.CHECK_FAILED
        assert named(findings, WRONG, "Other users of this machine can read")["do"] == f"chmod 600 {file}"
        file.chmod(0o600)
        assert doctor(CROSSHOST_AUTHKEY_FILE=str(file))[0] == ExitCode.OK


def test_a_broker_without_a_key_and_a_key_that_repeats_itself_are_named(server: Server) -> None:
    _, findings = doctor(CROSSHOST_BROKER_URL=server.url)
    named(findings, WRONG, "CROSSHOST_BROKER_URL is set, and no authkey")
    _, findings = doctor(CROSSHOST_AUTHKEY="a" * 32)
    named(findings, WRONG, "only 1 of its 32 bytes differ")


# --- Redis ----------------------------------------------------------------------------------------------------------


def test_a_redis_that_is_not_there_is_named_once() -> None:
    code, findings = doctor(CROSSHOST_BROKER_URL=f"redis://127.0.0.1:{free_port()}", CROSSHOST_AUTHKEY=KEY)
    assert code == ExitCode.CHECK_FAILED
    assert [one["what"].split(" at ")[0] for one in findings if one["level"] == WRONG] == ["Redis"]


def test_a_redis_that_hangs_is_named_within_a_bound(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert server.valkey
        server.valkey.send_signal(signal.SIGSTOP)
        _, findings = doctor(**leading_to(server))
        named(findings, WRONG, "no answer within 3 s")
        server.valkey.send_signal(signal.SIGCONT)


def test_a_redis_that_keeps_nothing_evicts_and_is_nearly_full_is_named(tmp_path: Path) -> None:
    options = ["--appendonly", "no", "--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"]
    with Server(tmp_path, *options) as server:
        while (said := server.client.info("memory"))["used_memory"] < 0.93 * said["maxmemory"]:
            server.client.append("much", b"x" * 50_000)
        code, findings = doctor(**leading_to(server))
    assert code == ExitCode.CHECK_FAILED
    assert "noeviction" in named(findings, WRONG, "maxmemory-policy is allkeys-lru")["do"]
    named(findings, WRONG, "Redis is nearly full")
    named(findings, NOTE, "it keeps nothing")
    named(findings, WRONG, "No host is alive")


def test_a_replica_is_named_with_its_primary(server: Server, tmp_path: Path) -> None:
    with Server(tmp_path, "--replicaof", "127.0.0.1", str(server.port)) as replica:
        _, findings = doctor(**leading_to(replica))
        assert f"127.0.0.1:{server.port}" in named(findings, WRONG, "is a replica")["do"]


def rules(role: str) -> str:
    """Of deploy/acl, as one line."""
    text = (ROOT / "deploy" / "acl" / role).read_text()
    return " ".join(" ".join(line.partition("#")[0] for line in text.splitlines()).split())


def with_user(tmp_path: Path, name: str, said: str) -> Server:
    file = tmp_path / "users"
    file.write_text(f"user default on nopass ~* &* +@all\nuser {name} on >pw {said}\n")
    return Server(tmp_path, "--aclfile", str(file))


def test_the_user_of_programs_may_do_all_that_is_asked_for(tmp_path: Path) -> None:
    with with_user(tmp_path, "producer", rules("producer")) as server:
        url = server.url.replace("unix://", "unix://producer:pw@")
        _, findings = doctor(**leading_to(server, CROSSHOST_BROKER_URL=url))
        named(findings, FINE, "user producer may do all")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (rules("page"), "may not do what programs do"),
        (rules("producer").replace("+zadd", ""), "may not do 2 of"),  # of a run, and of jobs
        (rules("producer") + " -info", "may not ask Redis how it is"),
        (rules("producer") + " -multi", "may not do what programs do: MULTI"),
    ],
    ids=["another role", "a command less", "no info", "no transactions"],
)
def test_a_user_who_may_not_do_all_is_named_and_nothing_is_done(tmp_path: Path, said: str, words: str) -> None:
    with with_user(tmp_path, "somebody", said) as server:
        url = server.url.replace("unix://", "unix://somebody:pw@")
        _, findings = doctor(**leading_to(server, CROSSHOST_BROKER_URL=url))
        assert [one for one in findings if words in one["what"] and one["level"] != FINE], findings
        assert server.client.keys("*doctor*") == []


def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    with with_user(tmp_path, "producer", rules("producer")) as server:
        url = server.url.replace("unix://", "unix://producer:wrong@")
        _, findings = doctor(**leading_to(server, CROSSHOST_BROKER_URL=url))
        named(findings, WRONG, "refused the user or password")


def test_whatever_scripts_call_is_asked_for() -> None:
    asked = {words[0].upper() for words in allowed.probes()}
    assert called("lab") - asked == set()


def test_a_clock_that_differs_is_named(server: Server) -> None:
    late = "import time\nreal = time.time\ntime.time = lambda: real() {}"
    _, findings = doctor(code=late.format("- 20"), **leading_to(server))
    assert "20.0 s behind" in named(findings, NOTE, "This machine's clock is")["what"]
    _, findings = doctor(code=late.format("+ 1000"), **leading_to(server))
    named(findings, WRONG, "This machine's clock is 1000.0 s ahead of Redis's")


# --- hosts ----------------------------------------------------------------------------------------------------------


def test_a_host_of_another_version_python_and_clock_is_named(server: Server) -> None:
    other = (
        "import platform, time, lab.version\nreal = time.time\ntime.time = lambda: real() + 1000\n"
        "lab.version.__version__ = '0.0.1'\nplatform.python_version = lambda: '3.10.2'"
    )
    worker = add_host(server, "host-old", other)
    try:
        code, findings = doctor(**leading_to(server))
    finally:
        take_away(server, worker, "host-old")
    assert code == ExitCode.CHECK_FAILED
    named(findings, WRONG, "another version runs on host-old (0.0.1)")
    assert "3.10" in named(findings, WRONG, "another one runs on host-old (3.10.2)")["do"]
    named(findings, WRONG, "The clock of host-old is")


def test_hosts_with_another_key_are_named_with_both(server: Server) -> None:
    _, findings = doctor(**leading_to(server, CROSSHOST_AUTHKEY=OTHER))
    named(findings, WRONG, "is not the one of host-1 (")


def test_a_host_that_does_not_answer_is_named(server: Server) -> None:
    worker = add_host(server, "host-stopped", CROSSHOST_LEASE="60")  # for as long it is taken for alive
    try:
        worker.send_signal(signal.SIGSTOP)
        _, findings = doctor(**leading_to(server))
        named(findings, WRONG, "host-stopped did not answer")
    finally:
        take_away(server, worker, "host-stopped")


def installed(folder: Path, **versions: str) -> str:
    """A folder with packages, as an installer leaves them."""
    for name, version in versions.items():
        (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
        (folder / f"{name}.py").write_text("")
    return str(folder)


def test_what_a_script_imports_and_a_host_lacks_is_named_before_the_first_call(server: Server, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "script.py").write_text(
        "import other, older, alike, sys\ntry:\n    import extra\nexcept ImportError:\n    extra = None\nprint('ran')\n"
    )
    ours = installed(tmp_path / "ours" / "site-packages", other="1.2.0", older="2.5.1", alike="3.1.0", extra="1.0")
    theirs = installed(tmp_path / "theirs" / "site-packages", older="2.4.9", alike="3.1.7")
    worker = add_host(server, "host-bare", PYTHONPATH=os.pathsep.join([str(ROOT), theirs]))
    try:
        env = leading_to(server, PYTHONPATH=os.pathsep.join([str(ROOT), ours]))
        code, findings = doctor(str(program / "script.py"), **env)
        command = [sys.executable, "-m", "producer", "run", "--on", "cluster"]
        ran, left = (
            subprocess.run(
                [*command, *more, str(program / "script.py")],
                cwd=tmp_path,
                env={**variables.unset(), **env},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            for more in ([], ["--detach"])
        )
    finally:
        take_away(server, worker, "host-bare")
    assert code == ExitCode.CHECK_FAILED
    lacks = named(findings, WRONG, "lack other, which the program imports; here it is 1.2.0")
    assert "host-1, host-bare" in lacks["what"]
    assert "pip install other==1.2.0" in lacks["do"]
    named(findings, WRONG, "Host host-bare has older 2.4.9, which the program imports; here it is 2.5.1")
    assert not [one for one in findings if "extra" in one["what"]]
    assert (ran.returncode, ran.stdout) == (0, "ran\n")
    assert left.returncode == 0
    for said in (ran.stderr, left.stderr):
        assert "Hosts host-1, host-bare lack other" in said
        assert "Host host-bare has older 2.4.9" in said
    assert "Host host-1 lacks alike" in ran.stderr  # host-bare has it, and another third number makes no difference
    assert "pip install alike==3.1.0 older==2.5.1 other==1.2.0\n" in ran.stderr


# --- this machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "level"), [(200, WRONG), (500, NOTE), (4096, FINE)])
def test_too_few_files_are_named(most: int, level: str) -> None:
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    _, findings = doctor(code=limit)
    named(findings, level, f"{most} files and sockets")


def look(check: Any, subject: Any) -> Findings:
    return [vars(finding) for finding in check(subject)]


def test_what_a_script_imports_and_is_not_installed_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    (tmp_path / "beside.py").write_text("import nowhere_b\n")
    script.write_text(
        "import json, pytest, beside, nowhere_a\ntry:\n    import nowhere_c\nexcept ImportError:\n    pass\n"
    )
    (found,) = machine.modules(machine.Machine(True, script=str(script)))
    assert (found.level, found.what) == (
        "wrong", f"{script} imports nowhere_a, nowhere_b, which this Python does not find.",
    )  # fmt: skip
    script.write_text("import json, pytest\n")
    (found,) = machine.modules(machine.Machine(True, script=str(script)))
    assert found.level == "fine"


def test_shared_memory_that_is_not_there_is_named(tmp_path: Path) -> None:
    there = machine.Machine(embedded=True, shm=str(tmp_path / "nowhere"))
    named(look(machine.shared_memory, there), WRONG, "There is no shared memory")


def test_a_long_path_for_sockets_and_one_that_is_not_there_are_named(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    _, findings = doctor(TMPDIR=str(long))
    named(findings, WRONG, "is long")


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        (None, NOTE, "There is no Docker here"),
        ("echo 'permission denied while trying to connect' >&2; exit 1", NOTE, "may not speak to Docker's engine"),
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", NOTE, "its engine does not answer"),
        ("[ $1 = version ] && echo '\"27.0\"' || exit 1", NOTE, "Docker has no Compose"),
        ("[ $1 = version ] && echo '\"27.0\"' || echo v2.30.0", FINE, "Docker's Compose is v2.30.0"),
    ],
    ids=["absent", "forbidden", "stopped", "without Compose", "there"],
)
def test_docker_is_told_as_it_is(
    script: str | None, level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if script is None else f"{tmp_path}:/usr/bin:/bin")
    named(look(engine.engine, tmp_path), level, words)


def test_an_engine_that_hangs_is_named_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(engine, "ANSWERS_WITHIN", 0.5)
    named(look(engine.engine, tmp_path), NOTE, "no answer within 0.5 s")


def test_secrets_that_are_not_made_or_older_than_their_rules_are_named(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("")
    (tmp_path / "deploy" / "acl").mkdir(parents=True)
    (tmp_path / "deploy" / "setup").write_text("")
    (tmp_path / "deploy" / "acl" / "producer").write_text("+get # to read\n+set\n")
    named(look(engine.secrets, tmp_path), NOTE, "there is no folder secrets")
    (tmp_path / "secrets").mkdir()
    for name in engine.SECRETS[:-1]:
        (tmp_path / "secrets" / name).write_text("user producer on #00 +get\n")
    named(look(engine.secrets, tmp_path), WRONG, "producer_password")
    (tmp_path / "secrets" / "producer_password").write_text("x")
    named(look(engine.secrets, tmp_path), NOTE, "older than what deploy/acl says")
    (tmp_path / "secrets" / "redis_acl").write_text("user producer on #00 +get +set\n")
    named(look(engine.secrets, tmp_path), FINE, "are made")
