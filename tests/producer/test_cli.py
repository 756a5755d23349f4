"""The command line as its users meet it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner

from lab import PLACES
from lab.concepts import CONCEPTS
from lab.errors import ExitCode, LabError, NotEnoughSlots
from lab.evidence import Result, Who
from producer import cli, errors, output, report, runs
from producer.comparison import Comparison
from producer.machine import Machine
from producer.runs import Link, Run
from tests import ROOT
from tests.kit.ports import free_port
from tests.kit.server import Server
from tests.kit.wait import readable

KEY = "0123456789abcdef0123456789abcdef"
HERE = ("--on", "threads", "--on", "processes")


# --- the command as a process ---------------------------------------------------------------------------------------


@dataclass
class Shell:
    """A terminal's environment: its variables, and a folder for temporary files that must be empty in the end."""

    tmp: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="ch-", dir="/tmp"))  # short: sockets live there
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    env: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        ours = ("CROSSHOST_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**env, "COLUMNS": "80", "TMPDIR": self.tmp, "TEST_MARK": self.mark, **self.env}

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "producer", *args]
        return subprocess.Popen(command, cwd=ROOT, env=self.variables(), text=True, start_new_session=True, **streams)

    def run(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def processes(self) -> list[str]:
        """Command lines of the living processes that were started from here, however deep (Linux)."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes():
                    found.append(f"{folder.name} {(folder / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        return found

    def files(self) -> list[str]:
        return sorted(os.listdir(self.tmp))

    def left(self, timeout: float = 10) -> list[str]:
        """What is still there after a moment of grace."""
        deadline = time.monotonic() + timeout
        while (left := self.processes() + self.files()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def kill(self) -> None:
        for line in self.processes():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


@pytest.fixture
def shell() -> Iterator[Shell]:
    with opened_shell() as one:
        yield one


@contextmanager
def opened_shell() -> Iterator[Shell]:
    one = Shell()
    try:
        yield one
    finally:
        one.kill()
        shutil.rmtree(one.tmp, ignore_errors=True)


def read_until(stream: IO[str], pattern: str, timeout: float = 60) -> str:
    """What a process has written when the pattern appears; an unbuffered read, so that select tells the truth."""
    text, deadline = "", time.monotonic() + timeout
    while not re.search(pattern, text):
        ready = readable(stream.fileno(), max(0.0, deadline - time.monotonic()))
        assert ready, f"no {pattern!r} within {timeout} s in {text!r}"
        data = os.read(stream.fileno(), 65536)
        assert data, f"ended without {pattern!r}: {text!r}"
        text += data.decode()
    return text


# --- concepts, demo, compare ----------------------------------------------------------------------------------------


def test_concepts_lists_every_concept_with_its_idea(shell: Shell) -> None:
    done = shell.run("concepts")
    assert done.returncode == 0
    assert [name for name in CONCEPTS if not re.search(rf"^{name}\s+\S", done.stdout, re.MULTILINE)] == []


def test_concepts_as_json_keeps_the_order_of_the_course(shell: Shell) -> None:
    listed = json.loads(shell.run("concepts", "--json").stdout)
    assert [each["name"] for each in listed] == list(CONCEPTS)
    assert all(each["idea"] for each in listed)


@pytest.mark.parametrize("command", ["--help", "concepts", "--version"])
def test_what_needs_no_fleet_does_not_load_celery(shell: Shell, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "producer", command],
        cwd=ROOT, env=shell.variables(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert not re.search(r"\| +(celery|kombu|redis)\b", done.stderr)


def test_help_names_the_commands_and_the_exit_codes(shell: Shell) -> None:
    done = shell.run("--help")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert all(command in words for command in ("concepts", "demo", "compare", "workers", "fleet"))
    assert all(f"{code.value} {errors.spoken(code)}" in words for code in ExitCode)


def test_demo_shows_children_and_evidence_of_each_place(shell: Shell) -> None:
    done = shell.run("demo", "process", *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    for place in ("threads", "processes"):
        assert f"process on {place}" in done.stdout
    assert "Hello" in done.stdout
    assert "held" in done.stdout


def test_demo_takes_places_with_commas_too(shell: Shell) -> None:
    done = shell.run("demo", "pipe", "--on", "threads,processes", "--json")
    assert [run["place"] for run in json.loads(done.stdout)["runs"]] == ["threads", "processes"]


def test_demo_as_json_writes_json_only_and_keeps_what_children_print(shell: Shell) -> None:
    done = shell.run("demo", "process", *HERE, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert done.stderr == ""
    assert document["ok"] is True
    assert all("Hello" in run["stdout"] for run in document["runs"])
    assert all(run["checks"] and run["seconds"] > 0 for run in document["runs"])


def test_children_start_from_a_console_script_too(shell: Shell, tmp_path: Path) -> None:
    """Spawn imports the main module again: here a script like the one that pip writes, not a package."""
    script = tmp_path / "producer"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom producer.__main__ import main\n"
        'if __name__ == "__main__":\n    sys.exit(main())\n'
    )
    done = subprocess.run(
        [sys.executable, str(script), "compare", "process", "--on", "processes", "--json", "-"],
        cwd=tmp_path, env=shell.variables(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True


def test_compare_shows_places_side_by_side_and_fits_80_columns(shell: Shell) -> None:
    done = shell.run("compare", "process", "pipe", *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "At a glance" in done.stdout
    assert "claims of 4 runs held" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert [line.split("] ")[1] for line in done.stderr.splitlines()] == [
        "process on threads", "process on processes", "pipe on threads", "pipe on processes",
    ]  # fmt: skip


def test_compare_writes_its_evidence_to_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    done = shell.run("compare", "pipe", *HERE, "--quiet", "--json", str(path))
    document = json.loads(path.read_text())
    assert (done.returncode, done.stderr) == (0, "")
    assert "At a glance" in done.stdout
    assert [(run["concept"], run["place"], run["ok"]) for run in document["runs"]] == [
        ("pipe", "threads", True), ("pipe", "processes", True),
    ]  # fmt: skip
    assert document["machine"]["cores"] >= 1


def test_compare_with_a_dash_writes_json_only(shell: Shell) -> None:
    done = shell.run("compare", "process", "--on", "processes", "--json", "-")
    assert json.loads(done.stdout)["ok"] is True


def test_nothing_is_coloured_in_a_pipe(shell: Shell) -> None:
    for args in (["concepts"], ["compare", "pipe", "--on", "threads"], ["demo", "pipe", "--on", "threads"]):
        done = shell.run(*args)
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_it_asks_not_to(shell: Shell, variables: dict[str, str], coloured: bool) -> None:
    shell.env = {"TERM": "xterm-256color", **variables}
    assert ("\x1b[" in on_terminal(shell, "compare", "pipe", "--on", "threads", "--quiet")) is coloured


def on_terminal(shell: Shell, *args: str) -> str:
    """Stdout of a command that believes to write to a terminal."""
    ours, theirs = pty.openpty()
    process = shell.start(*args, stdout=theirs)
    os.close(theirs)
    data = b""
    with suppress(OSError):  # the end of a terminal is an I/O error on Linux
        while readable(ours, 60) and (more := os.read(ours, 65536)):
            data += more
    os.close(ours)
    assert process.wait(60) == 0
    return data.decode()


# --- what goes wrong ------------------------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str], code: ExitCode) -> str:
    """Assert that a command ended as an error should, and give its words."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert errors.spoken(code) in done.stderr
    return done.stderr


def test_an_interrupt_before_the_command_has_begun_is_silent() -> None:
    code = """
import os, signal, sys
from producer.__main__ import main
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "producer.cli":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_command_called_by_another_program_leaves_that_programs_signals_alone() -> None:
    def handled() -> list[Any]:
        threads = [thread.name for thread in threading.enumerate() if thread.name == "signal watch"]
        return [threads, *(signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM))]

    before = handled()
    assert CliRunner().invoke(cli.main, ["concepts"]).exit_code == ExitCode.OK
    assert handled() == before


@pytest.mark.parametrize("command", ["demo", "compare"])
def test_an_unknown_concept_gets_the_nearest_name(shell: Shell, command: str) -> None:
    said = refused(shell.run(command, "conter"), ExitCode.USAGE)
    assert "'conter'" in said
    assert "Did you mean 'counter'?" in said


@pytest.mark.parametrize("command", ["demo", "compare"])
def test_an_unknown_place_gets_the_nearest_name(shell: Shell, command: str) -> None:
    said = refused(shell.run(command, "pipe", "--on", "thread"), ExitCode.USAGE)
    assert "Did you mean 'threads'?" in said


def test_demo_without_a_name_is_bad_usage(shell: Shell) -> None:
    assert shell.run("demo").returncode == ExitCode.USAGE


def test_a_file_that_cannot_be_written_is_known_before_the_work(shell: Shell) -> None:
    said = refused(shell.run("compare", "--json", "/nowhere/x.json"), ExitCode.USAGE)
    assert "/nowhere" in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CROSSHOST_BROKER_URL", "http://x"),
        ("CROSSHOST_LEASE", "abc"),
        ("CROSSHOST_START_TIMEOUT", "nan"),
        ("CROSSHOST_SLOTS", "0"),
        ("CROSSHOST_AUTHKEY_FILE", "/nowhere/key"),
    ],
)
@pytest.mark.parametrize("args", [["workers"], ["demo", "pipe", "--on", "cluster"], ["fleet"]], ids=" ".join)
def test_a_bad_setting_is_named_with_its_value(shell: Shell, args: list[str], variable: str, value: str) -> None:
    shell.env = {variable: value}
    said = refused(shell.run(*args), ExitCode.BAD_SETTINGS)
    assert variable in said
    assert repr(value) in said


def test_a_short_key_is_refused_and_not_shown(shell: Shell) -> None:
    shell.env = {"CROSSHOST_AUTHKEY": "swordfish", "CROSSHOST_BROKER_URL": "redis://127.0.0.1:1/0"}
    said = refused(shell.run("workers"), ExitCode.BAD_SETTINGS)
    assert "CROSSHOST_AUTHKEY" in said
    assert "swordfish" not in said


def test_a_broker_without_a_key_is_refused(shell: Shell) -> None:
    shell.env = {"CROSSHOST_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    assert "CROSSHOST_AUTHKEY" in refused(shell.run("workers"), ExitCode.BAD_SETTINGS)


@pytest.mark.parametrize("args", [["workers"], ["demo", "pipe", "--on", "cluster"], ["compare", "pipe"]], ids=" ".join)
def test_an_unreachable_broker_is_said_within_seconds(shell: Shell, args: list[str]) -> None:
    port = free_port()
    shell.env = {"CROSSHOST_BROKER_URL": f"redis://127.0.0.1:{port}/0", "CROSSHOST_AUTHKEY": KEY}
    began = time.monotonic()
    done = shell.run(*args)
    assert time.monotonic() - began < 5
    assert done.returncode == ExitCode.BROKER_UNREACHABLE
    assert done.stdout == ""
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:port/0", "redis://127.0.0.1:6379/zero", "redis://127.0.0.1:99999/0"]
)
def test_a_url_that_names_no_place_is_a_bad_setting(shell: Shell, url: str) -> None:
    shell.env = {"CROSSHOST_BROKER_URL": url, "CROSSHOST_AUTHKEY": KEY}
    assert "CROSSHOST_BROKER_URL" in refused(shell.run("workers"), ExitCode.BAD_SETTINGS)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "something else"])
def test_a_broker_that_is_not_redis_is_said_within_seconds(shell: Shell, answer: bytes) -> None:
    with imposter(answer) as port:
        shell.env = {"CROSSHOST_BROKER_URL": f"redis://127.0.0.1:{port}/0", "CROSSHOST_AUTHKEY": KEY}
        assert str(port) in refused(shell.run("workers", timeout=15), ExitCode.BROKER_UNREACHABLE)


@contextmanager
def imposter(answer: bytes) -> Iterator[int]:
    """A server on a free port that says one thing, or nothing, to whoever comes."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                clients.append(client)
                client.sendall(answer)

    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for client in clients:
        client.close()


def test_workers_without_a_broker_says_how_to_start_a_fleet(shell: Shell) -> None:
    assert "producer fleet" in refused(shell.run("workers"), ExitCode.NO_WORKERS)
    assert refused(shell.run("workers", "--json"), ExitCode.NO_WORKERS)


@pytest.mark.parametrize("whole_terminal", [True, False], ids=["the terminal", "the command"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_an_interrupted_command_is_silent_and_leaves_nothing(
    shell: Shell, signum: signal.Signals, whole_terminal: bool
) -> None:
    process = shell.start("compare", "gil", "counter", "pool", "--on", "processes")
    assert process.stderr is not None
    read_until(process.stderr, r"\[1/")
    time.sleep(0.4)  # into the run, to where children are
    (os.killpg if whole_terminal else os.kill)(process.pid, signum)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 128 + signum
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("[")] == []  # more progress, at the most
    assert shell.left() == []


def test_a_demo_interrupted_at_the_terminal_shows_no_traceback_of_its_children(shell: Shell) -> None:
    process = shell.start("demo", "gil", "counter", "pool", "--on", "processes")
    assert process.stdout is not None
    read_until(process.stdout, "gil on processes")
    time.sleep(0.4)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert shell.left() == []


def test_a_reader_that_leaves_ends_the_command_in_silence(shell: Shell) -> None:
    process = shell.start("compare", "pipe", "--on", "threads", "--quiet")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""


# --- the parts ------------------------------------------------------------------------------------------------------


class BrokenContext:
    """A place where nothing can be made."""

    place = "threads"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


def made_up(place: str, held: bool = True, **costs: float) -> Run:
    result = Result("counter", place, "happened " * 20, "because " * 20, costs=costs, seconds=1.5)
    result.who = [Who("host-1", 10, thread) for thread in (1, 2)]
    result.check("exactly 500 with a lock", held)
    return Run(result)


def shown(parts: list[Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    stream = StringIO()
    output.write_rich(parts, stream)
    return stream.getvalue()


def test_a_crash_is_an_outcome_and_not_the_end() -> None:
    run = runs.run("pipe", BrokenContext(RuntimeError("out of pipes")))
    assert not run.ok
    assert run.error == "RuntimeError: out of pipes"
    assert "Traceback" in run.traceback
    assert run.name == "pipe on threads"


def test_a_program_that_returns_nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.concepts.load", lambda name: lambda ctx: None)
    assert "instead of a Result" in runs.run("pipe", BrokenContext(RuntimeError())).error


def test_a_program_that_checks_nothing_has_failed() -> None:
    assert not Run(Result("pipe", "threads")).ok


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([made_up("threads")], 0),
        ([made_up("threads"), made_up("processes", held=False)], 1),
        ([made_up("threads", held=False), Run(Result("pipe", "cluster"), "lost", "", 8)], 8),
    ],
)
def test_the_exit_code_is_that_of_the_worst(outcomes: list[Run], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("producer.interrupt.leave", leave)
    with pytest.raises(SystemExit) as ended:
        errors.finish(outcomes)
    assert ended.value.code == code


def test_the_labs_own_errors_keep_their_exit_code() -> None:
    run = runs.run("pipe", BrokenContext(NotEnoughSlots("3 slots, 4 wanted", "worker --slots 4")))
    assert run.exit_code == ExitCode.NOT_ENOUGH_SLOTS


def test_an_error_is_told_with_its_hint_and_the_name_of_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    errors.explain(LabError("What happened.", "What to type."))
    assert capsys.readouterr().err == "error: What happened.\nWhat to type.\n(exit code 1: check failed)\n"


def test_costs_stand_beside_each_other_with_their_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Comparison(["counter"], list(PLACES), link=Link("Unix socket", True, 72e-6, [{"slots": 4}] * 3))
    prices = (1e-6, 4.5e-6, 170e-6)
    found.runs = [made_up(place, increment=price) for place, price in zip(PLACES, prices, strict=True)]
    text = shown(report.comparison(found), monkeypatch)
    assert re.search(r"increment +1\.00 us +x1 +4\.50 us +x4\.5 +170 us +x170\n", text)
    assert re.search(r"counter +ok +1\.50 s +ok +1\.50 s +ok +1\.50 s\n", text)
    assert "embedded, 3 hosts with 12 slots; Unix socket" in text
    assert "All 3 claims of 3 runs held." in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_failed_is_listed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Comparison(["counter"], ["threads", "processes"])
    found.runs = [made_up("threads", held=False), Run(Result("counter", "processes"), "TypeError: no [bold]way[/]")]
    text = shown(report.comparison(found), monkeypatch)
    assert "2 of 2 runs failed:" in text
    assert "counter on threads: not so: exactly 500 with a lock" in text
    assert "counter on processes: TypeError: no [bold]way[/]" in text


@pytest.mark.parametrize(
    ("place", "who", "words"),
    [
        ("threads", [], ""),
        ("processes", [Who("a", 1, 1)], "by 1 process on 1 host"),
        ("threads", [Who("a", 1, 2)], "by 1 thread in 1 process on 1 host"),
        ("cluster", [Who("a", 1, 1), Who("a", 1, 2)], "by 2 threads in 1 process on 1 host"),
        ("cluster", [Who("a", 1, 1), Who("b", 1, 1)], "by 2 processes on 2 hosts"),
    ],
)
def test_who_took_part_is_counted_in_words(place: str, who: list[Who], words: str) -> None:
    assert report.crew(Result("counter", place, who=who)) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 ns"),
        (2.1e-7, "210 ns"),
        (1.34e-4, "134 us"),
        (2.4e-3, "2.40 ms"),
        (0.9996, "1.00 s"),
        (61.23, "61.2 s"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_json_has_no_values_that_json_does_not_know() -> None:
    strange = {1: float("nan"), "b": {2.5}, "c": (b"x", None, True), "d": Path("/tmp")}
    assert output.plain(strange) == {"1": None, "b": [2.5], "c": ["b'x'", None, True], "d": "/tmp"}


def test_the_machine_describes_itself() -> None:
    here = Machine.here()
    assert here.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert 1 <= here.cores <= here.cores_total


# --- with a fleet ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> Iterator[dict[str, Any]]:
    """A fleet that ``producer fleet`` keeps, as its JSON describes it, with the variables that lead to it."""
    with opened_shell() as shell:
        process = shell.start("fleet", "--hosts", "2", "--slots", "3", "--json")
        assert process.stdout is not None
        described = json.loads(read_until(process.stdout, "\n"))
        names = {"CROSSHOST_BROKER_URL": "broker_url", "CROSSHOST_AUTHKEY_FILE": "authkey_file"}
        yield {**described, "env": {name: described[key] for name, key in names.items()}}
        process.terminate()
        assert process.wait(20) == 0
        assert shell.left() == []


def test_workers_shows_every_host_with_its_slots(shell: Shell, fleet: dict[str, Any]) -> None:
    shell.env = fleet["env"]
    done = shell.run("workers")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^host-1 +\d+ +3 +0 ", done.stdout, re.MULTILINE)
    assert "2 hosts with 6 slots" in done.stdout


def test_workers_as_json(shell: Shell, fleet: dict[str, Any]) -> None:
    shell.env = fleet["env"]
    document = json.loads(shell.run("workers", "--json").stdout)
    assert [(host["name"], host["slots"], host["busy"]) for host in document["hosts"]] == [
        ("host-1", 3, 0), ("host-2", 3, 0),
    ]  # fmt: skip
    assert 0 < document["round_trip"] < 1
    assert document["embedded"] is False


def test_another_key_is_told_apart(shell: Shell, fleet: dict[str, Any]) -> None:
    shell.env = {"CROSSHOST_BROKER_URL": fleet["broker_url"], "CROSSHOST_AUTHKEY": KEY}
    for args in (["workers"], ["demo", "pipe", "--on", "cluster"]):
        done = shell.run(*args)
        assert done.returncode == ExitCode.WRONG_KEY, done.stderr
        assert "CROSSHOST_AUTHKEY" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_demo_on_a_running_fleet(shell: Shell, fleet: dict[str, Any]) -> None:
    shell.env = fleet["env"]
    done = shell.run("demo", "pipe", "--on", "cluster", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert {who["host"] for who in run["who"]} <= {"host-1", "host-2"}
    assert shell.left() == []


def test_a_demo_without_a_fleet_brings_its_own_and_takes_it_away(shell: Shell) -> None:
    done = shell.run("demo", "pipe", "process", "--on", "cluster", timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello" in done.stdout
    assert shell.left() == []


def test_compare_describes_the_fleet_and_the_way_to_it(shell: Shell, fleet: dict[str, Any]) -> None:
    shell.env = fleet["env"]
    done = shell.run("compare", "pipe", "--on", "cluster", timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 hosts with 6 slots" in done.stdout
    assert "PING" in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda signum: signum.name)
def test_an_interrupted_command_takes_its_fleet_away(shell: Shell, signum: signal.Signals) -> None:
    process = shell.start("compare", "gil", "counter", "pool", "--on", "cluster")
    assert process.stderr is not None
    read_until(process.stderr, r"\[1/")
    time.sleep(0.4)
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert "Traceback" not in err
    assert shell.left(timeout=20) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda signum: signum.name)
def test_a_kept_fleet_ends_with_its_command(shell: Shell, signum: signal.Signals) -> None:
    process = shell.start("fleet", "--hosts", "1", "--slots", "1")
    assert process.stdout is not None
    printed = read_until(process.stdout, "AUTHKEY_FILE=.*\n")
    said = subprocess.run(
        ["sh", "-c", f"{printed}\nenv"], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    variables = dict(line.split("=", 1) for line in said.splitlines() if line.startswith("CROSSHOST_"))
    assert Path(variables["CROSSHOST_AUTHKEY_FILE"]).stat().st_mode & 0o077 == 0
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 0)
    assert shell.left(timeout=20) == []


def test_a_fleet_that_dies_ends_its_command_with_an_error(shell: Shell) -> None:
    process = shell.start("fleet", "--hosts", "1", "--slots", "1", "--json")
    assert process.stdout is not None
    described = json.loads(read_until(process.stdout, "\n"))
    os.kill(described["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.FLEET_FAILED
    assert "ended by itself" in err
    assert shell.left(timeout=20) == []


def test_a_broker_without_workers_is_told_apart(shell: Shell) -> None:
    with Server(Path(shell.tmp)) as server:
        shell.env = {"CROSSHOST_BROKER_URL": server.url, "CROSSHOST_AUTHKEY": KEY}
        refused(shell.run("workers"), ExitCode.NO_WORKERS)


def test_a_wrong_password_is_said_and_not_shown(shell: Shell) -> None:
    with Server(Path(shell.tmp), "--requirepass", "sesame", login=":sesame@") as server:
        shell.env = {"CROSSHOST_BROKER_URL": f"unix://:swordfish@{server.socket}", "CROSSHOST_AUTHKEY": KEY}
        said = refused(shell.run("workers"), ExitCode.BROKER_UNREACHABLE)
    assert "password" in said
    assert "swordfish" not in said
