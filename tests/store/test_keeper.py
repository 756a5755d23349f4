"""A program whose GIL is held by C code is alive; one that is stopped, killed or closed is not, and its keeper knows."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BrokerUnreachable
from lab.store import heartbeat
from lab.store import run as runs
from lab.store.keeper import Keeper
from lab.store.outage import ATTEMPT, Outage
from lab.store.run import ROOT_LEASES, Run
from lab.store.store import Store
from tests.kit.processes import alive
from tests.kit.server import Server
from tests.kit.wait import until, within

LEASE = 0.5
HOLD = """
import ctypes, os, sys, threading, time
import lab
from lab.store import heartbeat
from lab.store import run as runs
from tests.cluster.cluster_targets import sleep_for, take_and_leave

def hold(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # C code that keeps the GIL
"""

WORK = (
    HOLD
    + """
def late(lock, held):
    with lock:
        held.set()
        time.sleep(6)  # until the blocking command of who waits has ended, and nobody sends the next

if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        value, queue, lock, held = ctx.Value("i", 7), ctx.Queue(), ctx.Lock(), ctx.Event()
        queue.put("kept")
        child = ctx.Process(target=late, args=(lock, held))
        child.start()
        held.wait()
        got = []
        waiter = threading.Thread(target=lambda: got.append(lock.acquire()), daemon=True)
        waiter.start()
        with ctx.Pool(2) as pool:
            pool.map(abs, range(4))
            result = pool.apply_async(sleep_for, (3.0,))
            print("going", runs.current()._keeper.pid, flush=True)
            hold(SECONDS)
            print(result.get(10), pool.map(abs, [-1, -2]), value.value, queue.get(timeout=5), flush=True)
            waiter.join(20)
            child.join(10)
            print(got, child.exitcode, flush=True)
"""
)

WAIT = (
    HOLD
    + """
if __name__ == "__main__":
    with lab.get_context("cluster") as ctx:
        child = ctx.Process(target=sleep_for, args=(600,))
        child.start()
        if "fork" in sys.argv:
            readable, writable = os.pipe()
            if os.fork() == 0:
                print("forked", os.getpid(), flush=True)
                os.write(writable, b"!")
                time.sleep(30)  # outlives its parent, with all that it has inherited
                os._exit(0)
            os.read(readable, 1)
        until = time.monotonic() + 10
        while runs.current()._keeper.pid is None and time.monotonic() < until:
            time.sleep(0.01)
        print("going", runs.current()._keeper.pid, child.pid, runs.current().id, flush=True)
        time.sleep(600)
"""
)


@contextmanager
def program(server: Server, tmp_path: Path, text: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "program.py"
    script.write_text(text)
    process = subprocess.Popen(
        [sys.executable, script, *args], env=server.env, stdin=-1, stdout=-1, stderr=-1, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], word: str = "going") -> list[str]:
    assert process.stdout
    first, *rest = process.stdout.readline().split()
    assert first == word
    return rest


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Server(tmp_path, lease=LEASE) as server:
        run = Run.as_root(server.settings, Store(server.url, patience=20))
        until(lambda: run._keeper and run._keeper.pid, "the keeper is started")
        yield run
        run.close()


def keeper_of(run: Run) -> int:
    assert run._keeper
    assert run._keeper.pid
    return run._keeper.pid


def test_a_program_that_computes_in_c_for_longer_than_its_leases_loses_nothing_and_says_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=1, lease=1.0) as server:
        text = WORK.replace("SECONDS", "18")  # a key lives for 10 s, the program's lease 5
        with program(server, tmp_path, text) as process:
            said(process)
            out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["3.0 [1, 2] 7 kept", "[True] 0"], out + err
    assert err == ""


def test_redis_started_again_while_the_gil_is_held_finds_the_program_alive(tmp_path: Path) -> None:
    text = WORK.replace("SECONDS", "14")
    with Server(tmp_path, hosts=1, lease=1.0) as server, program(server, tmp_path, text) as process:
        said(process)
        time.sleep(3)  # in the middle of that
        server.restart(1.0)
        out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["3.0 [1, 2] 7 kept", "[True] 0"], out + err
    assert "does not know this program" not in err


def test_a_program_that_is_stopped_is_missed_in_time(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=1, lease=LEASE) as server, program(server, tmp_path, WAIT) as process:
        _, child, _ = map(str, said(process))
        os.kill(process.pid, signal.SIGSTOP)
        took = until(lambda: not alive(int(child)), "the child is killed", 20)
        assert took < (ROOT_LEASES + 2) * LEASE + 3


@pytest.mark.parametrize("fork", ["fork", ""])
def test_a_program_that_is_killed_takes_its_keeper_with_it(tmp_path: Path, fork: str) -> None:
    with Server(tmp_path, hosts=1, lease=LEASE) as server, program(server, tmp_path, WAIT, fork) as process:
        if fork:
            (forked,) = said(process, "forked")
        keeper, child, _ = said(process)
        assert alive(int(keeper))
        process.kill()
        assert within(3, lambda: not alive(int(keeper)))
        until(lambda: not alive(int(child)), "the child is killed", 20)
        if fork:
            assert alive(int(forked))
            os.kill(int(forked), signal.SIGKILL)


def test_a_forked_child_has_no_keeper_and_ends_none(run: Run) -> None:
    keeper = keeper_of(run)
    pid = os.fork()
    if pid == 0:
        assert run._keeper
        ok = run._keeper.pid is None and not run._keeper.look()
        run._keeper.close()
        os._exit(0 if ok and alive(keeper) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert alive(keeper)
    assert keeper_of(run) == keeper


def test_forked_children_make_names_and_tickets_of_their_own(run: Run) -> None:
    readable, writable = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            os.write(writable, f"{run.new_name('x')} {run.new_ticket()}\n".encode())
            os._exit(0)
        os.wait()
    os.close(writable)
    with open(readable) as pipe:
        made = [*pipe.read().split(), run.new_name("x"), run.new_ticket()]
    assert len(set(made)) == 6
    assert all(name.startswith(("root/", run.key("x", "root-"))) for name in made)


def test_the_keeper_ends_with_the_run(run: Run) -> None:
    keeper = keeper_of(run)
    run.close()
    assert not alive(keeper)
    assert run.store.call("EXISTS", run.key("processes")) == 0


def test_a_keeper_that_was_killed_is_replaced(run: Run) -> None:
    first = keeper_of(run)
    os.kill(first, signal.SIGKILL)
    until(lambda: run._keeper and run._keeper.pid not in (None, first), "there is another")


def test_a_keeper_that_is_stopped_is_not_relied_on(run: Run) -> None:
    assert run._keeper
    until(run._keeper.look, "it beats")
    os.kill(keeper_of(run), signal.SIGSTOP)
    until(lambda: run._keeper and not run._keeper.look(), "that is noticed")


def test_it_holds_nothing_of_the_program_and_hears_no_key_of_its_terminal(run: Run) -> None:
    keeper = keeper_of(run)
    assert run._keeper
    until(run._keeper.look, "it beats")
    held = sorted(os.readlink(f"/proc/{keeper}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{keeper}/fd"))
    assert held == ["/dev/null", "pipe", "pipe", "socket"]
    assert os.getsid(keeper) == os.getpgid(keeper) == keeper
    assert os.readlink(f"/proc/{keeper}/cwd") == "/"
    os.kill(keeper, signal.SIGINT)
    assert not within(0.5, lambda: not alive(keeper))


def test_it_is_small_and_idle(run: Run) -> None:
    keeper = keeper_of(run)
    assert run._keeper
    until(run._keeper.look, "it beats")
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{keeper}/status").read_text().splitlines())
    assert int(fields["RssAnon"].split()[0]) < 12 << 10  # KiB of its own
    ticks = sum(map(int, Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[11:13]))
    time.sleep(2)
    after = sum(map(int, Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[11:13]))
    assert after - ticks <= 4  # hundredths of a second


def beats_alone(server: Server, url: str, tmp_path: Path) -> None:
    """The keeper of a run, connected by this URL, renews its lease although the run's own thread does not."""
    run = Run(server.settings, Store(url, patience=5), "alone")
    lease = int(LEASE * 1000)
    run.eval(runs.JOIN, [], lease * ROOT_LEASES)
    keeper = Keeper(run.store.connection_options(), beat_of(run), LEASE / 2)
    try:
        keeper.look()
        before = float(run.store.call("ZSCORE", run.key("processes"), "root"))
        until(lambda: float(run.store.call("ZSCORE", run.key("processes"), "root")) > before + 2 * lease, "it beats")
        assert keeper.look()
        run.store.call("DEL", run.key("processes"))
        until(lambda: not keeper._process or keeper._process.poll() is not None, "it ends with its run")
        assert run.store.call("EXISTS", run.key("processes")) == 0
    finally:
        keeper.close()


def test_it_speaks_tls_and_trusts_nobody_but_the_ca_of_the_url(tmp_path: Path) -> None:
    key, ca = tmp_path / "key.pem", tmp_path / "ca.pem"
    subject = "-days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes {subject} -keyout {key} -out {ca}".split()
    subprocess.run(make, check=True, capture_output=True)
    with Server(tmp_path, lease=LEASE) as server, Secured(server.socket, ca, key) as secured:
        beats_alone(server, f"rediss://localhost:{secured.port}/0?ssl_ca_certs={ca}", tmp_path)
        options = Store(f"rediss://localhost:{secured.port}/0").connection_options()
        with pytest.raises(ssl.SSLCertVerificationError):
            heartbeat.Redis(options)


class Secured:
    """TLS in front of a Unix socket, which Valkey's wheel has none of."""

    def __init__(self, target: str, certificate: Path, key: Path) -> None:
        self._target, self._tls = target, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        """One loop for both directions, as a TLS object is not for two threads."""
        wrapped = self._tls.wrap_socket
        with suppress(OSError), wrapped(plain, server_side=True) as client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            while True:
                ready: list[Any] = (
                    [client] if client.pending() else wait([client, server])
                )  # descriptors above 1023 too
                for source in ready:
                    if not (data := source.recv(1 << 16)):
                        return
                    (server if source is client else client).sendall(data)

    def __enter__(self) -> Secured:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def beat_of(run: Run) -> tuple[Any, ...]:
    lease = int(LEASE * 1000)
    return (runs.BEAT.text, *run.command(runs.BEAT, [], lease * ROOT_LEASES, lease, runs.NAMES))


def test_it_logs_in_as_the_user_of_the_url_over_a_socket_and_over_tcp(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("user default off ~* &* +@all\nuser someone on >secret ~* &* +@all\n")
    with Server(tmp_path, "--aclfile", str(tmp_path / "acl"), login="someone:secret@", lease=LEASE) as server:
        beats_alone(server, server.url, tmp_path)
        beats_alone(server, server.tcp_url, tmp_path)


def test_it_brings_no_run_back_that_has_lapsed(run: Run) -> None:
    other = Run(run.settings, run.store, "lapsed")
    assert run.store.call(*beat_of(other)[1:]) == -1
    assert run.store.call("KEYS", "crosshost:{lapsed}:*") == []


def test_a_server_that_was_away_while_the_gil_was_held_is_not_given_up_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    outage = Outage("here", patience=30)
    outage.over()
    outage.pause(ConnectionError())
    now += 70  # held up
    outage.pause(ConnectionError())  # the attempt that had begun before
    now += ATTEMPT - 1
    outage.pause(ConnectionError())
    now += 2
    with pytest.raises(BrokerUnreachable):
        outage.pause(ConnectionError())


def test_what_it_is_told_is_not_on_its_command_line(run: Run) -> None:
    command = Path(f"/proc/{keeper_of(run)}/cmdline").read_bytes().split(b"\0")
    assert command[1:] == [b"-I", b"-S", os.fsencode(heartbeat.__file__), b""]
