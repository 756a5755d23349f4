"""A report can be made of whatever happened, and a check names what cannot have."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab.evidence import Check, Result, Who
from lab.trace import file
from lab.trace.events import WORDS, Event, Trace
from producer.comparison import Comparison
from producer.html import page, thin
from producer.html.timeline import nice
from producer.runs import Run
from producer.trace.check import violations
from producer.trace.lanes import STATES, Slice, picture
from producer.trace.perfetto import exported
from producer.trace.spent import of_lane, of_picture

A, B, C = "host-1/10/10", "host-1/11/11", "host-2/12/12"
MS = 1_000_000


def event(t: float, who: str, word: str, on: str = "", took: float = 0, **more: Any) -> Event:
    return Event(int(t * MS), who, word, on, f"program.py:{int(t) + 1}", int(took * MS), 0, more)


def sound() -> list[Event]:
    """A lock, a message, a call, and a death, as they may happen."""
    return [
        event(0, A, "started", name="main", cpu=0, ready=0),
        event(0, A, "made", "Lock 1", kind="Lock", value=1),
        event(1, A, "starts", "Process-1", item="1-1"),
        event(2, B, "started", name="Process-1", item="1-1", cpu=0, ready=0),
        event(2, A, "wanted", "Lock 1"),
        event(3, A, "got", "Lock 1"),
        event(3, B, "wanted", "Lock 1", of=A),
        event(5, A, "released", "Lock 1", took=1),
        event(7, B, "got", "Lock 1", of=A),
        event(8, B, "put", "Queue 1", took=1, item="2-1"),
        event(8, A, "waits", "Queue 1"),
        event(10, A, "taken", "Queue 1", item="2-1"),
        event(10, B, "released", "Lock 1"),
        event(11, A, "asked", "Pool 1", item="1-5", count=2),
        event(12, C, "started", name="PoolWorker-1"),
        event(13, C, "begun", "Pool 1", item="1-5", call="square"),
        event(15, C, "done", "Pool 1", item="1-5"),
        event(16, B, "ended", code=0, cpu=6 * MS, ready=2 * MS),
        event(17, C, "died", code=-9),
        event(20, A, "ended", code=0, cpu=9 * MS, ready=1 * MS),
    ]


def trace_of(events: list[Event], place: str = "cluster") -> Trace:
    return Trace([{"concept": "made up", "place": place, "clock error": 0}], events)


# what cannot be


def test_a_sound_trace_contradicts_nothing() -> None:
    assert list(violations(trace_of(sound()))) == []


def without(word: str, on: str = "", who: str = "") -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        index = next(
            i for i, e in enumerate(events) if e.event == word and (not on or e.on == on) and (not who or e.who == who)
        )
        return events[:index] + events[index + 1 :]

    return change


def with_(*more: Event) -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        return sorted([e for e in events if e.event != "died"] + list(more), key=lambda e: e.t)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("released", who=A), "got Lock 1 while host-1/10/10 had it, since 3.00 ms"),
        (without("wanted", who=B), "got Lock 1, which it had not wanted"),
        (lambda events: without("put")(with_()(events)), "taken 2-1 from Queue 1, which nobody had put"),
        (with_(event(12, B, "taken", "Queue 1", item="2-1")), "taken 2-1 from Queue 1, as was at 10.0 ms host-1/10/10"),
        (without("asked"), "call 1-5 of Pool 1 begins, for which nobody had asked"),
        (without("begun"), "call 1-5 of Pool 1 has ended, which had not begun"),
        (with_(event(12, B, "danced")), "there is no event 'danced'"),
        (with_(event(12, B, "released", "Lock 1")), "released Lock 1, which nobody had"),
        (with_(event(12, B, "set", "Event 1", took=-1)), "took less than no time"),
        (with_(event(11, B, "set", "Event 1", took=4), event(12, B, "set", "Event 1", took=3)), "are claimed twice"),
        (lambda events: [*events, event(4, A, "set", "Event 1")], "set comes after ended, which is later, at 20.0 ms"),
    ],
)
def test_what_cannot_be_is_named(change: Callable[[list[Event]], list[Event]], told: str) -> None:
    assert any(told in line for line in violations(trace_of(change(sound())))), list(
        violations(trace_of(change(sound())))
    )


def test_a_message_that_comes_before_it_was_sent_is_named_unless_the_clocks_may_err_so_much() -> None:
    events = sound()
    put = next(e for e in events if e.event == "put")
    put.t, put.took = int(10.4 * MS), 0
    events.sort(key=lambda e: e.t)
    trace = trace_of(events)
    assert any("before it was put" in line for line in violations(trace))
    trace.runs[0]["clock error"] = MS
    assert not any("before it was put" in line for line in violations(trace))


def test_more_got_than_a_semaphore_has_places_is_named() -> None:
    made = [event(0, A, "made", "Semaphore 1", kind="Semaphore", value=1)]
    both = [event(t, who, word, "Semaphore 1") for t, who in ((1, A), (2, B)) for word in ("wanted", "got")]
    assert any("of which no place was free" in line for line in violations(trace_of(made + both)))


def test_the_check_ends_with_1_and_names_the_first(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from producer.cli import main

    path = tmp_path / "t.jsonl"
    file.write(trace_of(sound()), path)
    fine = CliRunner().invoke(main, ["trace", "check", str(path)])
    assert (fine.exit_code, fine.output) == (0, "20 events of 1 runs: nothing contradicts itself\n")
    file.write(trace_of(without("released", who=A)(sound())), path)
    wrong = CliRunner().invoke(main, ["trace", "check", str(path)])
    assert wrong.exit_code == 1
    assert wrong.output.startswith("at 7.00 ms host-1/11/11 (program.py:8): got Lock 1 while host-1/10/10 had it")


# lanes


def test_a_lane_tells_what_its_thread_did_without_gaps() -> None:
    lanes = {lane.who: lane for lane in picture(sound()).lanes}
    told = [(piece.start // MS, piece.end // MS, piece.state) for piece in lanes[B].slices]
    assert told == [(2, 3, "run"), (3, 7, "wants"), (7, 8, "hold"), (8, 9, "op"), (9, 10, "hold"), (10, 16, "run")]
    assert [(piece.state, piece.of) for piece in lanes[B].slices if piece.state == "wants"] == [("wants", A)]
    assert "crowded" in [piece.state for piece in lanes[A].slices]
    assert [piece.state for piece in lanes[C].slices] == ["idle", "run", "idle"]
    assert (lanes[C].ending, lanes[C].code) == ("died", -9)


def test_the_parts_of_the_time_add_up() -> None:
    drawn = picture(sound())
    for lane in drawn.lanes:
        spent = of_lane(lane)
        assert sum(spent.parts.values()) == spent.wall == lane.end - lane.start
    spent = of_lane(next(lane for lane in drawn.lanes if lane.who == B))
    assert (spent.parts["computing"], spent.parts["no core"], spent.parts["lock"]) == (6 * MS, 2 * MS, 4 * MS)


def test_arrows_have_two_ends() -> None:
    kinds = {(arrow.kind, arrow.source, arrow.target) for arrow in picture(sound()).arrows}
    assert kinds == {("started", A, B), ("taken", B, A), ("begun", A, C), ("handed over", A, B)}


# other viewers


def test_the_export_keeps_the_rules_of_the_format() -> None:
    """Slices of one track nest, begins have their ends, flows have two, and times are not negative."""
    found = json.loads(json.dumps(exported(trace_of(sound()))))["traceEvents"]
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    pairs: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    named = {(e["pid"], e["tid"]) for e in found if e["ph"] == "M" and e["name"] == "thread_name"}
    assert {e["name"] for e in found if e["ph"] == "M"} == {"process_name", "thread_name"}
    for one in found:
        assert {"ph", "pid", "tid", "name"} <= set(one)
        if one["ph"] == "X":
            tracks.setdefault((one["pid"], one["tid"]), []).append((one["ts"], one["ts"] + one["dur"]))
            assert one["dur"] >= 0 <= one["ts"]
        elif one["ph"] in "besf":
            pairs.setdefault(("flow" if one["ph"] in "sf" else "async", one["id"]), []).append(one)
    assert set(tracks) <= named
    for pieces in tracks.values():
        ordered = sorted(pieces)
        assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(ordered))
    assert len(pairs) >= 8
    for (kind, _), both in pairs.items():
        assert [one["ph"] for one in both] == (["s", "f"] if kind == "flow" else ["b", "e"])
        assert both[0]["ts"] <= both[1]["ts"]
        assert both[0]["cat"] == both[1]["cat"]
        assert both[0]["name"] == both[1]["name"]
        assert all((one["pid"], one["tid"]) in named for one in both)


# reports


class Parts(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("src", "href", "data", "action") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> Parts:
    parts = Parts(text)
    assert not parts.open
    assert all(link.startswith("#") for link in parts.links)  # nothing is fetched
    assert {link[1:] for link in parts.links} <= set(parts.ids)
    assert len(parts.ids) == len(set(parts.ids))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|NaN|Infinity|\bnan\b|@import|url\((?!#)", text)
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S):
        json.loads(data)
    return parts


def test_a_report_is_one_file_that_fetches_nothing() -> None:
    parts = check_page(page.made(trace_of(sound())))
    assert parts.tags["h1"] == 1
    assert parts.tags["script"] == 2
    assert parts.tags["table"] >= 1


def test_a_report_of_nothing_is_a_report() -> None:
    check_page(page.made(Trace()))
    check_page(page.made(trace_of([])))


def test_names_of_a_program_do_not_become_markup() -> None:
    evil = "</script><script>alert('x')</script>\"&'<b>"
    events = [
        event(0, A, "started", name=evil),
        event(1, A, "wanted", evil),
        event(2, A, "got", evil),
        event(3, A, "ended"),
    ]
    for one in events:
        one.at = evil
    text = page.made(Trace([{"concept": evil, "place": evil}], events), None, evil)
    assert check_page(text).tags["script"] == 2
    assert "alert('x')</script>" not in text


@pytest.mark.parametrize("seed", range(8))
def test_ten_thousand_events_in_an_order_that_nobody_expects_give_a_report(seed: int, tmp_path: Path) -> None:
    """Clock steps, a lane that ends in the middle, a process that died without a word, ends without beginnings."""
    dice = random.Random(seed)
    threads = [f"host-{dice.randrange(3)}/{dice.randrange(5)}/{dice.randrange(5)}" for _ in range(12)]
    names = [f"{kind} {n}" for kind in ("Lock", "Queue 'x'", "Semaphore", "Pool", "<Event>") for n in range(3)]
    events, t = [], 0
    for _ in range(10_000):
        t += dice.choice([0, 1, 1000, 50_000, 2_000_000, -3_000_000])
        more: dict[str, Any] = {}
        if dice.random() < 0.6:
            more["item"] = f"{dice.randrange(3)}-{dice.randrange(500)}"
        if dice.random() < 0.3:
            more["of"] = dice.choice([*threads, "nobody/0/0"])
        if dice.random() < 0.1:
            more |= {"cpu": dice.randrange(10**9), "ready": dice.randrange(10**9), "code": dice.choice([None, 0, -9])}
        took, who = dice.choice([0, 0, 0, 500, 10**7]), dice.choice(threads)
        events.append(Event(max(t, 0), who, dice.choice(list(WORDS)), dice.choice(names), "p.py:1", took, 0, more))
    trace = Trace([{"concept": "disorder", "place": "cluster"}], events)
    file.write(trace, tmp_path / "t.jsonl")
    page.write(str(tmp_path / "t.html"), file.read(tmp_path / "t.jsonl"))
    check_page((tmp_path / "t.html").read_text())
    json.dumps(exported(trace))
    assert next(violations(trace))
    for lane in picture(events).lanes:
        assert all(piece.start <= piece.end and piece.state in STATES for piece in lane.slices)


def busy(count: int) -> list[Event]:
    events = []
    for n in range(count // 4):
        who, t, value = f"host-{n % 3}/{n % 10}/{n % 10}", n * 4_000, "Value 1"
        events += [
            Event(t, who, "wanted", "Lock 1", "p.py:1"), Event(t + 1_000, who, "got", "Lock 1", "p.py:1"),
            Event(t + 2_000, who, "written", value, "p.py:2", 500),
            Event(t + 3_000, who, "released", "Lock 1", "p.py:3", 400),
        ]  # fmt: skip
    return events


@pytest.mark.timeout(300)
def test_a_million_events_are_thinned_say_so_and_stay_under_5_mb() -> None:
    trace = trace_of(busy(1_000_000))
    assert list(violations(trace)) == []
    text = page.made(trace)
    assert len(text.encode()) < 5_000_000
    assert re.search(r"Not all is drawn. cluster: [\d,]+ slices are drawn as [\d,]+", text)
    assert "1,000,000 events" in text


def test_a_comparison_of_twelve_programs_in_three_places_stays_under_1_mb() -> None:
    runs = [{"concept": f"program {n // 3}", "place": f"place {n % 3}"} for n in range(36)]
    events = []
    for number in range(36):
        for one in busy(4_000):
            one.run = number
            events.append(one)
    text = page.made(Trace(runs, events), compared())
    assert 300_000 < len(text.encode()) < 1_000_000


def test_thinning_keeps_the_whole_length_and_what_most_of_it_was() -> None:
    lane = [Slice(n * 10, n * 10 + (9 if n % 2 else 10), "run" if n % 2 else "hold", many=1) for n in range(1000)]
    lane += [Slice(10_000, 90_000, "waits")]
    (few,), quantum = thin.thinned([lane], 50)
    assert len(few) <= 50
    assert quantum > 0
    assert (few[0].start, few[-1].end) == (0, 90_000)
    assert sum(piece.many for piece in few) == len(lane)
    assert few[-1].state == "waits"
    assert {piece.state for piece in few[:-1]} == {"hold"}
    assert thin.thinned([lane], 2000) == ([lane], 0)


def test_who_needs_less_leaves_the_rest() -> None:
    assert thin.shares([10, 1000, 5000], 2000) == [10, 995, 995]
    assert thin.shares([10, 20], 2000) == [10, 20]


def test_steps_of_a_scale_are_round() -> None:
    assert [nice(x) for x in (0.5, 1, 3, 70, 1.2e9)] == [1, 1, 5, 100, 2e9]


def compared() -> Comparison:
    """All that a comparison can show, made up."""
    found = Comparison(["counter", "gil"], ["threads", "processes", "cluster"])
    for factor, place in enumerate(found.places, 1):
        counter = Result("counter", place, f"happened on {place}", "because <so>", [Who("h", 1, factor)])
        counter.costs = {"increment, plain": 1e-7 * 10**factor, "increment, locked": 2e-6 * 10**factor}
        for way, losses in (("plain", {0: 4, 211 * factor: 1}), ("window_open", {450: 5}), ("locked", {0: 5})):
            counter.facts[f"{way}: trials by updates lost"] = {str(k): n for k, n in losses.items()}
        counter.checks, counter.seconds = [Check("with the lock, no trial lost one", True)], 0.5
        gil = Result("gil", place, "sped up", "because", [Who("h", 1, factor)])
        gil.facts["speed-up by workers"] = {
            "compute": {"1": 1, "2": 0.9 * factor, "4": 1.2},
            "wait": {"1": 1, "2": 2, "4": 3.9},
        }
        gil.checks, gil.seconds = [Check("4 workers speed up waiting", factor < 3)], 1.5
        found.runs += [Run(counter), Run(gil)]
    found.runs.sort(key=lambda run: run.result.concept)
    return found


def test_a_comparison_is_shown_with_what_was_measured_without_a_trace() -> None:
    text = page.made(trace_of(sound()), compared())
    check_page(text)
    for told in ("1 of 6 runs failed", "x100", "increment, locked on cluster: 2.00 ms", "1 of 5 trials lost 422",
                 "2 cores" if compared().machine.cores == 2 else "core", "not so: 4 workers speed up waiting",
                 "because &lt;so&gt;", "What one of each costs"):  # fmt: skip
        assert told in text, told


def test_where_the_time_went_is_a_bar_and_a_table_of_the_same_numbers() -> None:
    drawn = of_picture(picture(sound()))
    text = page.made(trace_of(sound()))
    assert drawn.parts["lock"] == 4 * MS
    assert re.search(r"waiting for a lock that somebody had</small></th><td>4\.00 ms", text)
