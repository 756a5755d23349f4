"""A trace says what happened, in the same words in every place, and the program does not notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import PLACES
from lab.concepts import load
from lab.trace import clock, file, measure, merge
from lab.trace.context import Tracing
from lab.trace.events import WORDS, Event, Trace
from producer.recording import Recording
from producer.trace.check import violations
from producer.trace.lanes import picture
from tests import ROOT
from tests.kit import variables
from tests.kit.wait import until
from tests.trace import trace_targets as targets

COMMON = (
    "made",
    "wanted",
    "got",
    "released",
    "put",
    "taken",
    "sent",
    "received",
    "set",
    "notified",
    "asked",
    "begun",
    "done",
)


def words(trace: Trace) -> Counter[str]:
    return Counter(event.event for event in trace.events)


def everything(ctx: Any) -> dict[str, Any]:
    """A program that uses every noun; what it found."""
    value, lock, gate, out = ctx.Value("i", 0), ctx.Lock(), ctx.Barrier(3), ctx.Queue()
    adders = [ctx.Process(target=targets.add, args=(value, lock, gate, out, 10)) for _ in range(3)]
    ours, theirs = ctx.Pipe()
    event, condition, ready, recursive = ctx.Event(), ctx.Condition(), ctx.Semaphore(0), ctx.RLock()
    others = [
        ctx.Process(target=targets.answer, args=(theirs,)),
        ctx.Process(target=targets.wait_for, args=(event, condition, ready)),
        ctx.Process(target=targets.use_rlock, args=(recursive,)),
    ]
    for child in adders + others:
        child.start()
    ours.send(1)
    found: dict[str, Any] = {"answer": ours.recv()}
    ours.send_bytes(b"bytes")
    found["bytes"] = ours.recv_bytes()
    event.set()
    ready.acquire()
    with condition:
        condition.notify_all()
    found["queue"] = [out.get(timeout=60) for _ in adders]
    for child in adders + others:
        child.join(60)
    array = ctx.Array("i", 3)
    array[1] = 5
    with ctx.Pool(2) as pool:
        found["map"] = pool.map(targets.square, range(20), 3)
        found["starmap"] = pool.starmap(targets.power, [(2, 3), (3, 2)])
        found["imap"] = sorted(pool.imap_unordered(targets.square, iter(range(5))))
        failed = pool.apply_async(targets.power, (2, -1))
        with pytest.raises(ValueError, match="negative"):
            failed.get(60)
    return found | {"codes": [c.exitcode for c in adders + others], "value": value.value, "array": array[:]}


FOUND = {
    "answer": 2, "bytes": b"bytes!", "queue": [10, 10, 10], "codes": [0] * 6, "value": 30, "array": [0, 5, 0],
    "map": [n * n for n in range(20)], "starmap": [8, 9], "imap": [0, 1, 4, 9, 16],
}  # fmt: skip


def test_a_program_finds_the_same_when_it_is_traced_and_the_trace_does_not_contradict_itself(ctx: Any) -> None:
    tracing = Tracing(ctx, "everything")
    with tracing as traced:
        assert everything(traced) == FOUND
    assert tracing.trace is not None
    assert list(violations(tracing.trace)) == []
    assert set(words(tracing.trace)) <= set(WORDS)


def managed(ctx: Any) -> dict[str, Any]:
    """A program that uses a manager's objects; what it found."""
    with ctx.Manager() as manager:
        shared, items, counted = manager.dict(), manager.list([5]), manager.Value("i", 0)
        names, queue, condition = manager.Namespace(last=""), manager.Queue(), manager.Condition(manager.Lock())
        lock = manager.Lock()
        children = [
            ctx.Process(target=targets.use_managed, args=(lock, shared, items, counted, names, queue)) for _ in range(3)
        ]
        for child in children:
            child.start()
        sizes = sorted(queue.get() for _ in children)
        for child in children:
            child.join(60)
        items += [7]
        del items[0]
        with condition:
            condition.notify_all()
        nested = manager.dict(inner=items)
        found = {"dict": dict(shared), "list": list(items), "inner": list(nested["inner"]), "in": 7 in items}
        return found | {
            "value": counted.value,
            "last": names.last,
            "sizes": sizes,
            "length": len(items),
            "str": str(items),
        }


def test_what_is_done_with_a_managers_objects_is_traced_and_is_the_same(ctx: Any) -> None:
    tracing = Tracing(ctx, "managed")
    with tracing as traced:
        found = managed(traced)
    assert found == managed(ctx)
    assert found["list"] == [1, 2, 3, 7]
    assert tracing.trace is not None
    assert list(violations(tracing.trace)) == []
    events = {(event.event, event.on) for event in tracing.trace.events}
    assert {
        ("written", "managed dict 1"), ("read", "managed dict 1"), ("written", "managed list 1"), ("got", "managed Lock 2"),
        ("written", "managed Value 1"), ("written", "managed Namespace 1"), ("put", "managed Queue 1"),
        ("taken", "managed Queue 1"), ("notified", "managed Condition 1"),
    } <= events  # fmt: skip
    where = {event.at.partition(":")[0] for event in tracing.trace.events if event.on.startswith("managed")}
    assert where == {"tests/trace/trace_targets.py", "tests/trace/test_trace.py"}


def test_the_same_program_leaves_the_same_events_in_every_place(cluster: Any) -> None:
    import lab

    counts = {}
    for place in PLACES:
        tracing = Tracing(cluster if place == "cluster" else lab.get_context(place), "everything")
        with tracing as traced:
            everything(traced)
        assert tracing.trace is not None
        found = words(tracing.trace)
        counts[place] = {word: found[word] for word in COMMON}
        names = {(event.event, event.on) for event in tracing.trace.events if event.event in COMMON}
        counts[place]["names"] = len(names)
        assert {("got", "Lock 1"), ("sent", "Pipe 1"), ("begun", "Pool 1"), ("put", "Queue 1")} <= names
    assert counts["threads"] == counts["processes"] == counts["cluster"]
    assert counts["threads"]["got"] >= 30 + 2


def test_an_event_says_who_did_it_and_on_which_line_of_the_program(ctx: Any) -> None:
    tracing = Tracing(ctx, "adders")
    with tracing as traced:
        value, lock, gate, out = traced.Value("i", 0), traced.Lock(), traced.Barrier(1), traced.Queue()
        child = traced.Process(target=targets.add, args=(value, lock, gate, out, 1), name="adder")
        child.start()
        out.get(timeout=60)
        child.join(60)
    assert tracing.trace is not None
    got = next(event for event in tracing.trace.events if event.event == "got" and event.on == "Lock 1")
    path, _, line = got.at.rpartition(":")
    assert path.endswith("trace_targets.py")
    assert "with lock" in (ROOT / "tests/trace/trace_targets.py").read_text().splitlines()[int(line) - 1]
    started = next(event for event in tracing.trace.events if event.more.get("name") == "adder")
    assert started.who == got.who
    main = tracing.trace.events[0].who
    taken = next(event for event in tracing.trace.events if event.event == "taken")
    assert taken.who == main != got.who


def test_what_a_killed_process_had_seen_is_there_and_who_waited_for_it(remote: Any) -> None:
    tracing = Tracing(remote, "killed")
    with tracing as traced:
        lock, held = traced.Lock(), traced.Event()
        child = traced.Process(target=targets.hold_and_die, args=(lock, held))
        child.start()
        assert held.wait(60)
        freed = lock.acquire(timeout=2)  # on the cluster, whose locks have owners that can die
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    assert freed is (remote.place == "cluster")
    assert tracing.trace is not None
    events = tracing.trace.events
    (died,) = [event for event in events if event.event == "died"]
    assert died.more["code"] == -signal.SIGKILL
    assert [e.event for e in events if e.who == died.who and e.on == "Lock 1"] == ["wanted", "got"]
    wanted = next(e for e in events if e.event == "wanted" and e.who == events[0].who)
    assert wanted.more["of"] == died.who
    assert list(violations(tracing.trace)) == []


def test_a_call_whose_worker_was_killed_begins_again_elsewhere(cluster: Any) -> None:
    tracing = Tracing(cluster, "redelivered")
    with tracing as traced, traced.Pool(2, targets.keep, (traced.Value("q", 0),)) as pool:
        assert pool.map(targets.die_in_call, range(4), 1) == [0, 1, 2, 3]
    assert tracing.trace is not None
    (again,) = [event for event in tracing.trace.events if event.event == "redelivered"]
    dead = [event.who for event in tracing.trace.events if event.event == "died"]
    assert again.more["of"] in dead
    assert again.who not in dead
    assert list(violations(tracing.trace)) == []


def test_a_late_writer_is_seen_to_be_refused(cluster: Any) -> None:
    tracing = Tracing(cluster, "lease")
    with tracing as traced:
        assert load("lease")(traced).ok
    assert tracing.trace is not None
    (refused,) = [event for event in tracing.trace.events if event.event == "refused"]
    holds = [event for event in tracing.trace.events if event.event == "got" and event.on == "Lock 1"]
    assert len(holds) == 2  # two believed that they had it
    assert refused.who == holds[0].who
    assert list(violations(tracing.trace)) == []


def in_deadlock(traced: Any) -> list[Any]:
    """Two processes, each of which wants what the other has."""
    a, b = traced.Lock(), traced.Lock()
    first, second = traced.Event(), traced.Event()
    children = [
        traced.Process(target=targets.one_after_the_other, args=(a, b, first, second), daemon=True),
        traced.Process(target=targets.one_after_the_other, args=(b, a, second, first), daemon=True),
    ]
    for child in children:
        child.start()
    assert first.wait(60)
    assert second.wait(60)
    time.sleep(1)  # until both wait for what the other has, and have said so: nobody can be asked
    return children


def the_circle(trace: Trace) -> str:
    (told,) = violations(trace)
    line = (ROOT / "tests/trace/trace_targets.py").read_text().splitlines().index(
        "        if second.acquire(timeout=8):"
    ) + 1
    assert told.startswith("deadlock")
    assert told.count(f"trace_targets.py:{line}") == 2
    assert "Lock 1" in told
    assert "Lock 2" in told
    return told


def test_a_deadlock_is_named_with_both_lines(ctx: Any) -> None:
    tracing = Tracing(ctx, "deadlock")
    children = in_deadlock(tracing.begin())
    trace = tracing.end()
    if ctx.place != "threads":
        for child in children:
            child.kill()
    for child in children:
        child.join(60)
    the_circle(trace)


def test_a_deadlock_that_ctrl_c_ends_is_told_as_it_was(remote: Any) -> None:
    """Who is interrupted lets go of what the other wants, which then gets it; and yet there was a deadlock."""
    tracing = Tracing(remote, "deadlock")
    children = in_deadlock(tracing.begin())

    def over(child: Any) -> bool:
        os.kill(child.pid, signal.SIGINT) if remote.place == "processes" else child._popen.interrupt()
        child.join(1)  # a wait may begin just after the signal has come, unheard: then it comes again
        return child.exitcode is not None

    for child in children:
        until(partial(over, child), "it ends")
    trace = tracing.end()
    assert any(event.event == "released" for event in trace.events)
    the_circle(trace)
    marks = [mark.told for lane in picture(trace.events).lanes for mark in lane.marks]
    assert "interrupted: Ctrl-C" in marks


def test_nothing_is_imported_for_a_trace_that_nobody_wants() -> None:
    code = (
        "import sys, lab, producer.demo, producer.cli, producer.script;"
        "from producer.places import Found; from producer.recording import Recording;"
        "producer.demo.demo(['threads'], Found(['threads']), True, 0.0, Recording());"
        "sys.exit(any(name.startswith(('lab.trace.', 'producer.html.')) for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["threads", "cluster"])
def test_what_tracing_costs_is_within_its_limits_and_in_the_trace(place: str, request: pytest.FixtureRequest) -> None:
    import lab

    ctx = request.getfixturevalue("cluster") if place == "cluster" else lab.get_context(place)
    best: dict[str, float] = {}
    for _ in range(12):  # other programs make it slower, never faster
        tracing = Tracing(ctx, "nothing")
        with tracing:
            pass
        assert tracing.trace is not None
        cost = tracing.trace.runs[0]["cost"]
        best = {name: min(value, best.get(name, value)) for name, value in cost.items()}
        if all(best[name] <= limit for name, limit in measure.LIMITS.items()):
            break
    assert {name: value for name, value in best.items() if value > measure.LIMITS[name]} == {}


# scripts


SCRIPT = """
    import multiprocessing
    import sys
    from multiprocessing import Process, Queue

    class Worker(Process):
        def __init__(self, queue, lock):
            super().__init__()
            self.queue, self.lock = queue, lock

        def run(self):
            with self.lock:
                inner = multiprocessing.Lock()      # made in the child, and traced there
                with inner:
                    self.queue.put(self.name and "worker")

    if __name__ == "__main__":
        if len(sys.argv) > 1:
            multiprocessing.set_start_method(sys.argv[1])
        queue, lock = Queue(), multiprocessing.Lock()
        workers = [Worker(queue, lock) for _ in range(2)]
        for worker in workers:
            worker.start()
        print(queue.get(), queue.get())
        for worker in workers:
            worker.join()
        sys.exit(3)
"""


@pytest.mark.parametrize(
    ("place", "method"),
    [("threads", ""), ("processes", ""), ("processes", "fork"), ("processes", "forkserver"), ("cluster", "")],
)
def test_a_script_is_traced_as_it_is(place: str, method: str, cluster: Any, tmp_path: Path) -> None:
    cluster.connect()
    script, out = tmp_path / "script.py", tmp_path / "trace.jsonl"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [
        sys.executable,
        "-m",
        "producer",
        "run",
        "script.py",
        "--on",
        place,
        "--trace",
        "trace.jsonl",
        "--",
        method,
    ]
    env = variables.leading_to(cluster.settings)
    done = subprocess.run(
        command if method else command[:-2],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "worker worker\n"), done.stderr
    trace = file.read(out)
    assert list(violations(trace)) == []
    found = words(trace)
    assert (found["started"], found["put"], found["taken"], found["got"]) == (3, 2, 2, 4)
    assert {event.at.rpartition(":")[0] for event in trace.events if event.event == "put"} == {"script.py"}
    assert "ns an event" in done.stderr


def test_an_initializer_that_cannot_be_called_is_refused_as_without_a_trace(ctx: Any) -> None:
    with Tracing(ctx, "pool") as traced, pytest.raises(TypeError, match="initializer must be a callable"):
        traced.Pool(1, initializer=5)


EXECUTOR = """
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial

    def square(number):
        return number * number

    def remember(number):
        global remembered
        remembered = number

    def with_it(number):
        return number + remembered

    def apply(function, number):
        return function(number)

    if __name__ == "__main__":
        with ProcessPoolExecutor(2, initializer=remember, initargs=(7,)) as executor:
            futures = [executor.submit(square, n) for n in range(3)]
            print([future.result() for future in futures], list(executor.map(with_it, range(4), chunksize=2)))
            print(isinstance(executor, ProcessPoolExecutor), type(executor.submit(divmod, 1, 0).exception()).__name__)
            print(executor.submit(partial(apply, square), 3).result())
"""


@pytest.mark.parametrize("place", PLACES)
def test_an_executor_of_a_script_is_traced(place: str, cluster: Any, tmp_path: Path) -> None:
    cluster.connect()
    script, out = tmp_path / "script.py", tmp_path / "trace.jsonl"
    script.write_text(textwrap.dedent(EXECUTOR))
    done = subprocess.run(
        [sys.executable, "-m", "producer", "run", str(script), "--on", place, "--trace", str(out)],
        cwd=tmp_path, env=variables.leading_to(cluster.settings), capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.stdout == "[0, 1, 4] [7, 8, 9, 10]\nTrue ZeroDivisionError\n9\n", done.stderr
    trace = file.read(out)
    assert list(violations(trace)) == []
    begun = Counter(str(event.more["call"]) for event in trace.events if event.event == "begun")
    assert begun == {"square": 3, "with_it": 4 if place == "threads" else 2, "divmod": 1, "apply": 1}
    assert {event.on for event in trace.events if event.event in ("asked", "begun", "done")} == {"Executor 1"}
    assert sum(event.event == "done" and event.more.get("error") == "ZeroDivisionError" for event in trace.events) == 1
    assert all("worker" not in event.at for event in trace.events)


def test_arrays_without_a_lock_are_traced_and_stay_in_their_memory(ctx: Any) -> None:
    tracing = Tracing(ctx, "arrays")
    with tracing as traced:
        numbers, text = traced.RawArray("i", 4), traced.Array("c", 4, lock=False)
        child = traced.Process(target=targets.fill, args=(numbers, text))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert [numbers[0], numbers[1:3], list(numbers)[:3], len(numbers)] == [7, [8, 9], [7, 8, 9], 4]
        assert text.value == b"abc"
        assert numbers[3] == (0 if ctx.place == "cluster" else 5)
        with pytest.raises(IndexError):
            numbers[4] = 1
    assert tracing.trace is not None
    assert list(violations(tracing.trace)) == []
    done = [(event.event, event.on) for event in tracing.trace.events if event.event in ("read", "written")]
    assert Counter(done) == {
        ("written", "Array 1"): 2, ("written", "Array 2"): 1, ("read", "Array 1"): 4, ("read", "Array 2"): 1
    }  # fmt: skip
    lines = {event.at.partition(":")[0] for event in tracing.trace.events if event.event in ("read", "written")}
    assert lines == {"tests/trace/trace_targets.py", "tests/trace/test_trace.py"}


AWAITED = """
    import time
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, TimeoutError, as_completed, wait

    def nap(seconds):
        time.sleep(seconds)
        return seconds

    if __name__ == "__main__":
        with ProcessPoolExecutor(2) as executor:
            executor.submit(nap, 0).result()
            quick, slow = executor.submit(nap, 0.1), executor.submit(nap, 0.8)
            print(wait([quick, slow], return_when=FIRST_COMPLETED).done == {quick})
            print(len(wait([quick, slow]).not_done), len(wait([quick, slow], 0).done))
            print(sorted(future.result() for future in as_completed([executor.submit(nap, s) for s in (0.5, 0.01)])))
            late = executor.submit(nap, 0.6)
            print(len(wait([late], timeout=0.05).not_done))
            try:
                list(as_completed([late], timeout=0.05))
            except TimeoutError as exc:
                print(exc)
        with ThreadPoolExecutor(2) as threads:
            print(len(wait([threads.submit(nap, 0.01)]).done), list(as_completed([])))
"""


@pytest.mark.parametrize("place", PLACES)
def test_who_waits_for_futures_is_traced_with_whom_it_waits_for(place: str, cluster: Any, tmp_path: Path) -> None:
    cluster.connect()
    script, out = tmp_path / "script.py", tmp_path / "trace.jsonl"
    script.write_text(textwrap.dedent(AWAITED))
    done = subprocess.run(
        [sys.executable, "-m", "producer", "run", str(script), "--on", place, "--trace", str(out)],
        cwd=tmp_path, env=variables.leading_to(cluster.settings), capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.stdout == "True\n0 2\n[0.01, 0.5]\n1\n1 (of 1) futures unfinished\n1 []\n", done.stderr
    trace = file.read(out)
    assert list(violations(trace)) == []
    doers = {event.item: event.who for event in trace.events if event.event == "done"}
    main = next(event.who for event in trace.events if event.event == "started" and event.more.get("name") == "main")
    waits = [
        e for e in trace.events if e.who == main and e.event in ("waits", "woken", "gave up") and e.on == "Executor 1"
    ]
    with_items = [event for event in waits if event.event != "gave up"]
    assert [len(event.more["items"]) for event in with_items if event.event == "waits"][1:] == [2, 1, 2, 1, 1, 1]
    for begun, ended in zip(waits[::2], waits[1::2], strict=True):
        assert begun.event == "waits"
        assert begun.at.startswith("script.py:")
        if ended.event == "woken":
            (item,) = ended.more["items"]
            assert item in begun.more["items"]
            assert ended.more["of"] == doers[item]
    assert [event.event for event in waits[1::2]] == ["woken"] * 5 + ["gave up"] * 2
    arrows = [arrow for arrow in picture(trace.events).arrows if arrow.kind == "woken" and arrow.target == main]
    assert len(arrows) == 5


def test_map_and_demo_write_traces(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("\n".join(map(str, range(50))))
    mapped = subprocess.run(
        [sys.executable, "-m", "producer", "map", "builtins:len", "items.txt", "-o", "out.jsonl", "-q",
         "--trace", "map.jsonl"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert mapped.returncode == 0, mapped.stderr
    assert words(file.read(tmp_path / "map.jsonl"))["received"] > 0
    assert list(violations(file.read(tmp_path / "map.jsonl"))) == []
    demo = subprocess.run(
        [sys.executable, "-m", "producer", "demo", "pipe", "--on", "threads", "--trace", "demo.jsonl"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    assert "cost of one" not in demo.stdout  # the trace would be among it
    check = [sys.executable, "-m", "producer", "trace", "check", "demo.jsonl"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 0


def test_chaos_leaves_a_trace_of_what_died_and_who_took_over(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "producer", "chaos", "--kills", "3", "--redis-restarts", "1", "--cuts", "1",
               "--items", "200",
               "--seconds", "6", "--seed", "5", "--trace", "chaos.jsonl", "--report", "chaos.html"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trace = file.read(tmp_path / "chaos.jsonl")
    found = words(trace)
    assert found["died"] >= 1
    assert found["broken"] >= 4
    assert found["outage begun"] >= 1 <= found["outage ended"]
    assert [line for line in violations(trace) if "deadlock" in line] == []
    assert "nothing was lost" in (tmp_path / "chaos.html").read_text()


# clocks


def test_clocks_of_two_kernels_are_brought_together_over_a_third() -> None:
    readings = [("a", (1_000, 400)), ("a", (900, 100)), ("b", (-5_000_000, 60)), ("b", None)]
    offsets, error = clock.together(readings)
    assert offsets == {"a": 900, "b": -5_000_000}
    assert error == 50 + 30


def test_one_kernel_needs_no_bringing_together() -> None:
    assert clock.together([("a", (1_000, 400)), ("a", None)]) == ({"a": 0}, 0)


def test_a_clock_is_read_with_half_the_quickest_round_trip_as_its_error(cluster: Any) -> None:
    store = cluster.connect().store
    offset, trip = clock.read(store.call)
    seconds, micros = (int(part) for part in store.call("TIME"))
    assert abs(clock.now() + offset - (seconds * 10**9 + micros * 1000)) < 1_000_000_000
    assert 0 < trip < 1_000_000_000


def test_messages_between_hosts_with_different_clocks_do_not_arrive_before_they_were_sent() -> None:
    skew = 3_600_000_000_000
    a = {"host": "a", "pid": 1, "kernel": "ka", "token": 1, "chunk": 0, "clock": (0, 10), "closed": True}
    b = {"host": "b", "pid": 1, "kernel": "kb", "token": 2, "chunk": 0, "clock": (skew, 10), "closed": True}
    item = {"item": (1 << 32) + 1}
    sent = [(1_000, "put", 1, "Queue 1", "p.py", 1, 0, item)]
    taken = [
        (900 - skew, "waits", 1, "Queue 1", "p.py", 2, 0, None),
        (1_500 - skew, "taken", 1, "Queue 1", "p.py", 2, 0, item),
    ]
    trace = merge.merged([(b, taken), (a, sent)], {"place": "cluster"})
    assert [(event.t, event.who, event.event) for event in trace.events] == [
        (0, "b/1/1", "waits"), (100, "a/1/1", "put"), (600, "b/1/1", "taken"),
    ]  # fmt: skip
    assert trace.runs[0]["clock error"] == 10
    assert list(violations(trace)) == []


def test_a_chunk_that_came_twice_counts_once() -> None:
    head = {"host": "a", "pid": 1, "kernel": "k", "token": 1, "chunk": 0, "clock": None, "closed": True}
    chunk = (head, [(1, "set", 1, "Event 1", "p.py", 1, 0, None)])
    assert len(merge.merged([chunk, chunk], {}).events) == 1


# files


def test_a_file_has_one_header_and_a_line_for_each_event(tmp_path: Path) -> None:
    events = [
        Event(5, "h/1/1", "got", "Lock 1", "p.py:3", 0, 0, {"of": "h/1/2"}),
        Event(9, "h/1/1", "released", "Lock 1", took=4),
    ]
    trace = Trace([{"concept": "c", "place": "threads"}], events, {"version": "1"})
    file.write(trace, tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines[0]["format"] == "crosshost trace"
    assert lines[1] == {
        "run": 0, "t": 5, "who": "h/1/1", "event": "got", "on": "Lock 1", "at": "p.py:3", "of": "h/1/2"
    }  # fmt: skip
    assert file.read(tmp_path / "t.jsonl") == trace


def test_a_trace_that_was_cut_between_two_lines_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    event = Event(t=1, who="host/1/1", event="started")
    file.write(Trace([], [event, event], {}), path)
    assert len(file.read(path).events) == 2
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(file.NoTrace, match="1 of 2 events"):
        file.read(path)


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"format": "crosshost trace", "schema": 99}',
                                     '{"format": "crosshost trace", "schema": 1}\n{"t": "x"}'])  # fmt: skip
def test_what_is_no_trace_is_refused_in_words(content: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(file.NoTrace):
        file.read(tmp_path / "t")


def test_the_record_of_a_program_that_is_told_to_end_is_whole(tmp_path: Path) -> None:
    """SIGTERM, as a pool sends it to its workers: the last that they did is there."""
    script = tmp_path / "s.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, time
        def child(lock, ready):
            ready.set()
            with lock:
                time.sleep(60)
        if __name__ == "__main__":
            lock, ready = multiprocessing.Lock(), multiprocessing.Event()
            one = multiprocessing.Process(target=child, args=(lock, ready))
            one.start()
            ready.wait()
            while lock.acquire(False):
                lock.release()
            one.terminate()
            one.join()
            print(one.exitcode)
    """)
    )
    command = [sys.executable, "-m", "producer", "run", "s.py", "--on", "processes", "--trace", "t.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{-signal.SIGTERM}\n", done.stderr
    trace = file.read(tmp_path / "t.jsonl")
    ended = [event for event in trace.events if event.event == "ended" and event.more["code"] == -signal.SIGTERM]
    assert len(ended) == 1
    assert words(trace)["died"] == 0


BANK = """
import multiprocessing

def move(mine, other, ready, go):
    with mine:
        ready.set()
        go.wait()
        with other:
            pass

if __name__ == "__main__":
    a, b, go = multiprocessing.Lock(), multiprocessing.Lock(), multiprocessing.Event()
    ready = multiprocessing.Event(), multiprocessing.Event()
    children = [
        multiprocessing.Process(target=move, args=(a, b, ready[0], go), daemon=True),
        multiprocessing.Process(target=move, args=(b, a, ready[1], go), daemon=True),
    ]
    for child in children:
        child.start()
    for each in ready:
        each.wait()
    go.set()
    print("ready", flush=True)
    for child in children:
        child.join()
"""
"""Ends in a deadlock."""


def end_of_bank(tmp_path: Path, place: str, end: Callable[[subprocess.Popen[str]], object]) -> int:
    """Run it with a trace; end it when all wait; its exit code."""
    (tmp_path / "bank.py").write_text(BANK)
    run = [sys.executable, "-m", "producer", "run", "bank.py", "--on", place, "--trace", "t.jsonl"]
    with subprocess.Popen(
        run, cwd=tmp_path, env=variables.unset(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(1)  # until both wait for what the other has, and have said so: nobody can be asked
            end(process)
            return process.wait(30)
        finally:
            with suppress(ProcessLookupError):  # on processes, those of a program that SIGTERM ends go on, as ever
                os.killpg(process.pid, signal.SIGKILL)


def circle_of_bank(tmp_path: Path) -> str:
    """What there is to say of its trace: the deadlock, and nothing else."""
    (told,) = violations(file.read(tmp_path / "t.jsonl"))
    assert told.startswith("deadlock")
    assert told.count(f"bank.py:{BANK.splitlines().index('        with other:') + 1}") == 2
    return told


@pytest.mark.parametrize("place", PLACES)
def test_a_program_that_sigterm_ends_leaves_a_trace_and_ends_by_it(place: str, tmp_path: Path) -> None:
    """A deadlock that one ends so is in the trace; so is how its program ended."""
    assert end_of_bank(tmp_path, place, subprocess.Popen.terminate) == -signal.SIGTERM
    circle_of_bank(tmp_path)
    ends = [event for event in file.read(tmp_path / "t.jsonl").events if event.event == "ended"]
    assert [event.more["code"] for event in ends] == [-signal.SIGTERM]


def test_a_program_whose_whole_group_is_told_to_end_leaves_a_trace_as_well(tmp_path: Path) -> None:
    """As ``timeout`` does it: its children end while the trace is put together."""
    assert end_of_bank(tmp_path, "processes", lambda bank: os.killpg(bank.pid, signal.SIGTERM)) == -signal.SIGTERM
    circle_of_bank(tmp_path)


def test_a_program_that_is_told_to_end_while_its_main_thread_has_what_the_end_needs_ends(tmp_path: Path) -> None:
    """The handler runs in the middle of whatever that was doing, here of an import, and does not wait for it for ever."""
    code = (
        "import threading\n"
        "from lab.trace import recorder\n"
        "recorder.FINISH, lock = 1.0, threading.Lock()\n"
        f"recorder.RECORDER.begin(('file', {str(tmp_path)!r}))\n"
        "recorder.end_when_told(lock.acquire)\n"
        "with lock:\n"
        "    print('ready', flush=True)\n"
        "    threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_an_interrupted_command_leaves_the_trace_of_what_had_happened(tmp_path: Path, threads: Any) -> None:
    recording = Recording(str(tmp_path / "t.jsonl"))
    with pytest.raises(KeyboardInterrupt), recording.around(threads, "it") as traced, traced.Lock():
        raise KeyboardInterrupt
    found = words(file.read(tmp_path / "t.jsonl"))
    assert found["got"] == found["released"] == 1


def test_a_process_that_is_told_to_end_while_it_hands_in_ends(tmp_path: Path) -> None:
    """The handler runs in the middle of whatever the process was doing, and must not wait for it."""
    code = (
        "from lab.trace.recorder import RECORDER, end_when_told\n"
        f"RECORDER.begin(('file', {str(tmp_path)!r}))\n"
        "end_when_told()\n"
        "print('ready', flush=True)\n"
        "while True: RECORDER.hasten()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(8)]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
            assert process.stdout
            process.stdout.close()
