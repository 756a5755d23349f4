"""The page: what it answers to whom, and what a browser shows of a real fleet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, expect, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from lab.fleet.counts import CALLS, PARTS, read
from lab.watching.watcher import Watcher
from tests import ROOT
from tests.kit.processes import alive, die_with_us
from tests.kit.server import Server
from tests.kit.wait import until
from tests.watching.conftest import COUNTED, STUCK, line_of, producer, running, seen
from tests.watching.test_watcher import named

Programs = Callable[..., Any]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


class Served:
    """A page that is served.

    Attributes:
        url: As it was printed, with the token.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.base, _, self.token = url.partition("#")

    def get(self, path: str = "", body: Any = None, **headers: str) -> tuple[int, str]:
        """The answer's status and text."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def serving(server: Server, *options: str, **env: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "producer", "page", "--port", "0", "--no-browser", *options]
    with subprocess.Popen(
        command, env={**server.env, **env}, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us
    ) as process:
        try:
            assert process.stdout
            yield Served(process.stdout.readline().strip())
        finally:
            process.terminate()
            assert process.wait(20) in (0, 143, -15)


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Served]:
    with serving(server) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, or the one that playwright has installed."""
    installed = next(
        (path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.path.exists(path)), None
    )
    with sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=installed, args=QUIET)
        except Error as exc:
            pytest.skip(f"there is no chromium here: {exc}")
        yield browser
        browser.close()


# --- who is answered


def test_nothing_of_the_fleet_is_told_without_the_token(page: Served) -> None:
    assert page.get()[0] == 200  # the empty page
    for path in ("looks", "metrics", "stack", "nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"token={page.token}"}):
            assert page.get(path, **headers)[0] == 401
    assert page.get("metrics", **page.bearer)[0] == 200
    assert page.get(f"metrics?token={page.token}")[0] == 401


def test_another_name_for_the_loopback_is_refused(page: Served) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1", ""):
        assert page.get("metrics", Host=host, **page.bearer)[0] in (400, 421), host
    for host in ("localhost:1", "127.0.0.1", "[::1]:9"):
        assert page.get("metrics", Host=host, **page.bearer)[0] == 200


def test_another_page_is_refused_even_with_the_token(page: Served) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"):
        assert page.get("metrics", Origin=origin, **page.bearer)[0] == 403, origin
    assert page.get("metrics", Origin=page.base.rstrip("/"), **page.bearer)[0] == 200


def test_it_listens_on_the_loopback_alone(page: Served) -> None:
    port = int(page.base.rstrip("/").rpartition(":")[2])
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_faults_cannot_be_caused_unless_that_was_asked_for(page: Served) -> None:
    assert page.get("fault", {"what": "cut"}, **page.bearer)[0] == 404


def test_a_token_from_a_file_is_the_token(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef0123\n")
    with serving(server, CROSSHOST_PAGE_TOKEN_FILE=str(file)) as served:
        assert served.token == ""  # it is not printed
        assert served.get("metrics", Authorization="Bearer 0123456789abcdef0123")[0] == 200
        assert served.get("metrics", Authorization="Bearer ")[0] == 401
    file.write_text("short\n")
    done = producer(server, "page", "--no-browser", CROSSHOST_PAGE_TOKEN_FILE=str(file))
    assert done.returncode == 3
    assert "can be guessed" in done.stderr


def test_without_its_packages_it_says_what_to_install(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)\n"
    )
    done = producer(server, "page", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 3
    assert "not installed here: uvicorn" in done.stderr
    assert "pip install starlette uvicorn sse-starlette" in done.stderr


# --- what is told


def test_metrics_have_what_is_there_and_forget_what_is_gone(
    programs: Programs, page: Served, watcher: Watcher, server: Server
) -> None:
    program = programs("left", "right", "pool", "queue")
    seen(watcher, lambda fleet: named(fleet, "left").on and len(fleet.runs[0].pools[0].taken) == 2)

    def value(metric: str) -> float | None:
        found = re.search(
            rf"^crosshost_{metric}(?:{{.*}})? (\S+)$", page.get("metrics", **page.bearer)[1], re.MULTILINE
        )
        return float(found[1]) if found else None

    until(lambda: value("deadlocks") == 1, "the deadlock is counted")
    text = page.get("metrics", **page.bearer)[1]
    assert re.search(r'^crosshost_slots{host="host-1"} 4$', text, re.MULTILINE)
    assert re.search(r'^crosshost_queue_length{run="\w+",name="queue:root-\d+"} 5$', text, re.MULTILINE)
    assert re.search(r'^crosshost_pool_calls_handed_out{run="\w+",name="pool:root-\d+"} 2$', text, re.MULTILINE)
    assert re.search(r'^crosshost_lock_waiters{run="\w+",name="sem:root-0"} 1$', text, re.MULTILINE)
    assert value("redis_memory_bytes")
    assert all(family.name.startswith("crosshost_") for family in text_string_to_metric_families(text))
    run_id = watcher.look().runs[0].id
    program.send_signal(2)
    until(lambda: run_id not in page.get("metrics", **page.bearer)[1], "what is gone is forgotten")


def sums(page: Served) -> dict[str, float]:
    """What Prometheus makes of the page, over all hosts; of a histogram's buckets the last, by name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.get("metrics", **page.bearer)[1]):
        assert family.documentation
        assert family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            if sample.labels.get("le") in (None, "+Inf"):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_metrics_count_calls_and_waits_and_go_on_when_the_page_is_started_again(
    page: Served, server: Server, tmp_path: Path
) -> None:
    before = sums(page)

    def new(now: dict[str, float], name: str) -> float:
        return now.get(name, 0) - before.get(name, 0)

    with running(server, str(tmp_path / "mark"), script=COUNTED):
        until(lambda: new(sums(page), "crosshost_call_seconds_count") >= 11, "ten calls, and one that was repeated")
        now = sums(page)
        assert new(now, "crosshost_call_seconds_count") == 11
        assert new(now, "crosshost_call_seconds_bucket") == 11
        assert new(now, "crosshost_call_seconds_sum") > 0
        assert new(now, "crosshost_call_errors_total") == 1
        assert now["crosshost_pool_redeliveries_total"] == 1
        assert new(now, "crosshost_lock_waited_seconds_count") >= 1
        assert new(now, "crosshost_lock_waited_seconds_sum") >= 0.3
    until(lambda: "crosshost_pool_redeliveries_total" not in sums(page), "the pool is gone")
    with serving(server) as again:
        counted = sums(again)
    assert all(counted[name] >= now[name] for name in now if name.endswith(("_total", "_count")) and "pool" not in name)


def test_a_host_that_is_gone_is_in_no_metric_and_goes_on_counting_when_it_is_back(tmp_path: Path) -> None:
    with Server(tmp_path, hosts=1, slots=2) as server, serving(server) as page:
        with running(server, str(tmp_path / "mark"), script=COUNTED):
            until(lambda: sums(page).get("crosshost_call_seconds_count", 0) >= 11, "calls are counted")
        worker = server.workers.pop()
        worker.kill()
        worker.wait(10)
        until(lambda: "host=" not in page.get("metrics", **page.bearer)[1], "its announcement lapses")
        server.add_host()
        until(lambda: 'host="host-1"' in page.get("metrics", **page.bearer)[1], "it is back", 60)
        with running(server, str(tmp_path / "mark2"), script=COUNTED):
            until(lambda: sums(page).get("crosshost_call_seconds_count", 0) >= 22, "it goes on counting")


def test_what_somebody_else_has_written_among_counts_is_not_told() -> None:
    buckets = ",".join(["1"] * PARTS).encode()

    class Forged:
        def pipeline(self, commands: Any) -> list[Any]:
            flat = [
                CALLS.encode(),
                buckets,
                b"call_errors",
                b"x",
                b"redelivered",
                b"-1",
                b"\xff",
                b"1",
                b"lock_waited_seconds",
                b"1",
            ]
            return [flat for _ in commands]

    assert read(Forged(), ["host-1"]) == {"host-1": {CALLS: [1] * PARTS}}


def test_nobody_looks_while_nobody_watches(page: Served, server: Server) -> None:
    def looks() -> int:
        return int(server.client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"])

    request = urllib.request.Request(page.base + "looks", headers=page.bearer)
    with urllib.request.urlopen(request, timeout=20) as stream:
        for _ in range(3):
            while not (line := stream.readline()).startswith(b"data:"):
                pass
            assert json.loads(line[5:])["hosts"]
    assert looks()  # how long Celery's queues are; at rest nobody else asks for the length of a list
    until(lambda: _still(looks, 3.0), "the looks end", 60)


def _still(count: Callable[[], int], seconds: float) -> bool:
    before = count()
    time.sleep(seconds)  # that nothing happens takes a while
    return count() == before


# --- what is seen


def test_a_browser_shows_a_deadlock_who_holds_and_who_waits(
    programs: Programs, page: Served, browser: Browser, tmp_path: Path
) -> None:
    programs("left", "right", "cruncher", "pool")
    with browser.new_context(color_scheme="dark", viewport={"width": 1400, "height": 1000}) as context:
        tab, wrong = context.new_page(), list[str]()
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(page.url)
        expect(tab.locator("#alarms")).to_contain_text("Deadlock", timeout=30_000)
        expect(tab.locator("#alarms")).to_contain_text(f"{STUCK}:{line_of('with b', 'left')} in left")
        row = tab.locator("tr", has_text="left").first
        expect(row).to_contain_text("◇waits for a lock sem:root-1")
        expect(tab.locator("tr", has_text="sem:root-0").last).to_contain_text("held by left")
        assert page.token not in tab.url
        assert tab.get_by_role("button", name="kill").count() == 0
        # by keyboard: where is it?
        tab.get_by_role("button", name="Where is cruncher").focus()
        tab.wait_for_timeout(2500)  # the page is drawn anew, and the focus stays
        tab.keyboard.press("Enter")
        expect(tab.locator("dialog")).to_contain_text(f"{STUCK}:{line_of('sum(', 'cruncher')} in cruncher")
        tab.keyboard.press("Escape")
        expect(tab.locator("dialog")).not_to_be_visible()
        tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        assert wrong == []


def test_whoever_watches_kills_a_worker_and_freezes_a_holder_and_sees_what_follows(
    programs: Programs, server: Server, browser: Browser, watcher: Watcher
) -> None:
    programs("holder", "waiter", "pool")
    fleet = seen(watcher, lambda fleet: len(fleet.runs[0].pools[0].taken) == 2 and named(fleet, "waiter").on)
    worker = next(process for process in fleet.runs[0].processes if process.doing == "in a call")
    with serving(server, "--faults") as served, browser.new_context() as context:
        tab = context.new_page()
        tab.goto(served.url)
        tab.get_by_role("button", name=f"kill {worker.name}", exact=True).click()
        expect(tab.locator("tr", has_text=f"{worker.name} ")).to_have_count(0, timeout=20_000)
        assert not alive(worker.pid)
        expect(
            tab.locator("tr", has_text="call 0 nap()").or_(tab.locator("tr", has_text="call 1 nap()"))
        ).to_have_count(2, timeout=20_000)  # another has it
        tab.get_by_role("button", name="freeze holder").click()
        expect(tab.locator("tr.x, tr", has_text="holder").first).to_contain_text("silent for", timeout=20_000)
        # its lease lapses, and who has waited goes on
        expect(tab.locator("tr", has_text="waits for a lock")).to_have_count(0, timeout=30_000)
        before = server.client.info("stats")["total_connections_received"]
        tab.get_by_role("button", name="Cut the network").click()
        until(lambda: server.client.info("stats")["total_connections_received"] > before + 3, "they connect again")
        expect(tab.locator("#pulse")).to_contain_text("live", timeout=20_000)


def test_a_page_without_the_token_asks_for_it(page: Served, browser: Browser) -> None:
    with browser.new_context() as context:
        tab = context.new_page()
        tab.goto(page.base)
        tab.get_by_label("Token").fill(page.token)
        tab.get_by_role("button", name="Show the fleet").click()
        expect(tab.locator("#hosts")).to_contain_text("host-1", timeout=20_000)
