"""A shared object reaches each host once, is read-only there, and lives as long as somebody has it."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lab
from lab import sharedfile
from lab.cluster import share
from lab.errors import KeyLost, ObjectGone, RedisFull, WrongKey
from lab.explored.search import explore
from lab.store import run as runs
from lab.store.store import Store
from tests.cluster import share_targets as targets
from tests.cluster.share_targets import TIMEOUT
from tests.kit.server import Server
from tests.kit.wait import until, within


def numbers(many: int = 1000) -> Any:
    return np.arange(many, dtype=np.int64)


TOTAL = int(numbers().sum())


# What it is, in every place


def test_a_shared_object_is_the_value_of_what_is_handed_over(ctx: Any) -> None:
    shared = ctx.share(numbers())
    assert (shared.value == numbers()).all()
    with ctx.Pool(2) as pool:
        assert pool.map(targets.total, [shared] * 5) == [TOTAL] * 5
        assert pool.starmap(targets.total_of, [(shared, 0), (shared, 999)]) == [TOTAL, 999]


def test_it_may_be_handed_to_a_process_and_to_the_workers_of_a_pool(ctx: Any) -> None:
    shared, reply = ctx.share(numbers()), ctx.Queue()
    child = ctx.Process(target=targets.tell, args=(reply, shared), daemon=True)
    child.start()
    assert reply.get(timeout=TIMEOUT) == TOTAL
    child.join(TIMEOUT)
    with ctx.Pool(2, targets.keep, (shared,)) as pool:
        assert pool.map(targets.total_of_kept, range(4)) == [TOTAL] * 4


def test_it_goes_through_a_queue_a_pipe_a_list_and_an_executor(ctx: Any) -> None:
    shared, line = ctx.share(numbers()), ctx.Queue()
    line.put([shared])
    assert targets.total(line.get(timeout=TIMEOUT)[0]) == TOTAL
    one, other = ctx.Pipe()
    one.send(shared)
    assert other.poll(TIMEOUT)
    assert targets.total(other.recv()) == TOTAL
    with ctx.Manager() as manager:
        kept = manager.list([shared])
        assert targets.total(kept[0]) == TOTAL
    with lab.get_executor(ctx.place, 1) as executor:
        assert isinstance(executor, Executor)
        assert executor.submit(targets.total, shared).result(TIMEOUT) == TOTAL


def test_who_makes_it_need_not_keep_it_for_a_call_that_is_under_way(ctx: Any) -> None:
    with ctx.Pool(1) as pool:
        calls = [pool.apply_async(targets.total, (ctx.share(numbers()),)) for _ in range(20)]
        gc.collect()
        assert [call.get(TIMEOUT) for call in calls] == [TOTAL] * 20


def test_it_outlives_who_has_made_it_while_another_one_has_it(remote: Any) -> None:
    maker = {"processes": targets.share_between_processes, "cluster": targets.share_on_cluster}[remote.place]
    reply = remote.Queue()
    child = remote.Process(target=targets.make, args=(maker, reply), daemon=True)
    child.start()
    child.join(TIMEOUT)
    assert child.exitcode == 0
    shared = reply.get(timeout=TIMEOUT)
    assert targets.total(shared) == 1000
    with remote.Pool(1) as pool:
        assert pool.apply_async(targets.total, (shared,)).get(TIMEOUT) == 1000


def test_it_can_be_passed_on_by_one_who_has_not_looked_at_it(remote: Any) -> None:
    source, reply = remote.Queue(), remote.Queue()
    child = remote.Process(target=targets.pass_on, args=(source, reply), daemon=True)
    child.start()
    source.put(remote.share(numbers()))
    assert targets.total(reply.get(timeout=TIMEOUT)) == TOTAL
    child.join(TIMEOUT)


def test_arrays_in_it_are_views_of_memory_that_nobody_may_write_to(remote: Any) -> None:
    whole = {"array": numbers(100_000), "words": ["a", {"b": 1}], "view": memoryview(b"bytes" * 9)}
    shared = remote.share(whole)
    with remote.Pool(1) as pool:
        seen = pool.apply_async(targets.look, (shared,)).get(TIMEOUT)
        assert seen == {
            "equal": True, "writeable": False, "memory": "mmap", "aligned": True,
            "others": (["a", {"b": 1}], b"bytes" * 9, True), "again": True,
        }  # fmt: skip
        assert "read-only" in pool.apply_async(targets.refuses_writing, (shared,)).get(TIMEOUT)


@pytest.mark.parametrize(
    "obj", [None, [], b"", np.zeros(0), np.zeros((3, 0)), np.asfortranarray(np.ones((3, 4))), [np.ones(3)[::2]] * 2,
            memoryview(b""), memoryview(bytes(6)).cast("H", [3, 1]), {"deep": [(np.array(1), "x" * 100_000)]}],
    ids=lambda obj: type(obj).__name__,
)  # fmt: skip
def test_whatever_pickles_can_be_shared(remote: Any, obj: Any) -> None:
    came = pickle.loads(pickle.dumps(remote.share(obj)))
    with remote.Pool(1) as pool:
        back = pool.apply_async(targets.back, (came,)).get(TIMEOUT)
    expected = obj.tobytes() if isinstance(obj, memoryview) else obj
    assert repr(back) == repr(expected)


def test_what_does_not_pickle_is_refused_as_elsewhere(remote: Any) -> None:
    with pytest.raises((pickle.PicklingError, TypeError), match="generator"):
        remote.share(n for n in range(1))


def test_an_object_that_changes_later_is_shared_as_it_was(remote: Any) -> None:
    array = numbers()
    shared = remote.share(array)
    array[:] = 0
    with remote.Pool(1) as pool:
        assert pool.apply_async(targets.total, (shared,)).get(TIMEOUT) == TOTAL


def test_the_explored_place_has_it() -> None:
    def program(ctx: Any) -> int:
        shared, reply = ctx.share(numbers()), ctx.Queue()
        child = ctx.Process(target=targets.tell, args=(reply, shared))
        child.start()
        found = reply.get() + shared.value[1]
        child.join()
        return int(found)

    ((outcome, _),) = explore(program).found.items()
    assert (outcome.kind, outcome.text) == ("result", str(TOTAL + 1))


# How long it is there


def test_with_the_last_who_has_it_goes_what_it_took(cluster: Any) -> None:
    run = cluster.connect()
    with cluster.Pool(2) as pool:
        shared = cluster.share(numbers(400_000))
        assert len(shared_keys(run, shared.name)) == 6  # four pieces, their number, who has it
        assert pool.map(targets.total, [shared] * 4) == [int(numbers(400_000).sum())] * 4
        assert len(host_memory(shared._size)) > 0
        name, size = shared.name, shared._size
        del shared
        until(lambda: not shared_keys(run, name), "Redis has forgotten it")
        until(lambda: not host_memory(size), "hosts have forgotten it")


def test_a_process_that_is_killed_has_it_no_more(cluster: Any) -> None:
    run = cluster.connect()
    reply, commands, shared = cluster.Queue(), cluster.Queue(), cluster.share(numbers())
    child = cluster.Process(target=targets.read_when_told, args=(shared, commands, reply), daemon=True)
    child.start()
    commands.put("read")
    assert reply.get(timeout=TIMEOUT) == ("total", TOTAL)
    name = shared.name
    del shared
    run.store.settle()
    assert shared_keys(run, name)  # the child has it
    child.kill()
    child.join(TIMEOUT)
    until(lambda: not shared_keys(run, name), "Redis has forgotten it")


def test_files_of_processes_go_with_the_last_who_has_one() -> None:
    ctx = lab.get_context("processes")
    shared = ctx.share(numbers())
    folder = shared._path.parent
    assert (folder.stat().st_mode & 0o777, shared._path.stat().st_mode & 0o777) == (0o700, 0o600)
    with ctx.Pool(1) as pool:
        pool.apply_async(targets.total, (shared,)).get(TIMEOUT)
        name = shared.name
        del shared
        until(lambda: not list(folder.glob(f"{name}.*")), "the file is gone")


def test_a_process_that_is_killed_leaves_no_file() -> None:
    ctx = lab.get_context("processes")
    reply, commands, shared = ctx.Queue(), ctx.Queue(), ctx.share(numbers())
    child = ctx.Process(target=targets.read_when_told, args=(shared, commands, reply), daemon=True)
    child.start()
    commands.put("read")
    assert reply.get(timeout=TIMEOUT) == ("total", TOTAL)
    child.kill()
    child.join(TIMEOUT)
    names = [path.name for path in shared._path.parent.glob(f"{shared.name}.*")]
    until(lambda: len(list(shared._path.parent.glob(f"{shared.name}.*"))) == 1, f"of {names} one is left")


def test_a_program_that_is_killed_leaves_nothing_after_the_next_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import os, signal, lab
            if __name__ == "__main__":
                shared = lab.get_context("processes").share([1, 2, 3])
                print(shared._path.parent, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=TIMEOUT)
    folder = Path(done.stdout.strip())
    assert done.returncode == -signal.SIGKILL
    assert folder.is_dir()
    mine = lab.get_context("processes").share([4])
    sharedfile.clear()
    assert not folder.exists()
    assert mine._path.exists()  # a program that lives keeps its own


def test_what_children_alone_have_shared_goes_with_the_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import lab

            def make():
                print(lab.get_context("processes").share([1, 2, 3])._path.parent, flush=True)

            if __name__ == "__main__":
                child = lab.get_context("processes").Process(target=make)
                child.start()
                child.join()
        """)
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert sharedfile.PREFIX in done.stdout
    assert not Path(done.stdout.strip()).exists()


def test_memory_that_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ctx = lab.get_context("processes")
    before = set(sharedfile._room().path.iterdir())
    monkeypatch.setattr(sharedfile, "_write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        ctx.share(numbers())
    assert "--shm-size" in caught.value.__notes__[0]
    assert set(sharedfile._room().path.iterdir()) <= before


def test_what_nobody_has_any_more_is_named(remote: Any) -> None:
    shared = remote.share(numbers())
    pickled = pickle.dumps(shared)
    came = pickle.loads(pickled)
    assert came is shared
    del came, shared
    gc.collect()
    if remote.place == "cluster":
        remote.connect().store.settle()
    with pytest.raises(ObjectGone, match="no process of the program has it"):
        pickle.loads(pickled)


# Across hosts


def test_it_comes_to_each_host_once(cluster: Any) -> None:
    hosts = len(cluster.fleet())
    with cluster.Pool(4 * hosts) as pool:
        until(lambda: len({who.host for who in pool.map(targets.here, range(8 * hosts), 1)}) == hosts, "all are in use")
        shared = cluster.share(numbers(1_000_000))
        before = read_from_redis(cluster)
        assert pool.map(targets.total, [shared] * 40, 1) == [int(numbers(1_000_000).sum())] * 40
        assert read_from_redis(cluster) - before <= hosts * -(-shared._size // share.PIECE)


def test_nothing_of_it_is_plain_in_redis(cluster: Any) -> None:
    run = cluster.connect()
    shared = cluster.share([b"open sesame" * 1000, np.frombuffer(b"open sesame" * 1000, dtype=np.uint8)])
    pieces = [run.store.call("GET", key) for key in shared_keys(run, shared.name) if key.rpartition(b":")[2].isdigit()]
    assert pieces
    assert not any(b"sesame" in piece for piece in pieces)
    assert targets.total_bytes(shared) == 11_000


def test_a_piece_that_was_exchanged_for_another_is_refused(cluster: Any) -> None:
    run, shared = cluster.connect(), cluster.share(numbers(400_000))
    base = run.key("share", shared.name)
    first = run.store.call("GET", f"{base}:0")
    run.store.call("SET", f"{base}:1", first, "PX", 60_000)
    with cluster.Pool(2) as pool, pytest.raises(WrongKey, match="does not open"):
        pool.apply_async(targets.total, (shared,)).get(TIMEOUT)


def test_a_piece_that_somebody_has_deleted_is_named(cluster: Any) -> None:
    run, shared = cluster.connect(), cluster.share(numbers(400_000))
    run.store.call("DEL", run.key("share", shared.name, "2"))
    with cluster.Pool(2) as pool, pytest.raises(KeyLost, match="a piece of a shared object"):
        pool.apply_async(targets.total, (shared,)).get(TIMEOUT)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_another_one_brings_it_when_who_was_to_is_killed_or_stopped(cluster: Any, how: signal.Signals) -> None:
    shared, reply = cluster.share(numbers(1_000_000)), cluster.Queue()
    pairs = [(told := cluster.Queue(), reader(cluster, shared, told, reply)) for _ in range(4)]
    by_host: dict[str, list[tuple[Any, Any]]] = {}
    for pair in pairs:
        by_host.setdefault(pair[1].host, []).append(pair)
    (first, stalled), (second, _), *_ = next(together for together in by_host.values() if len(together) > 1)
    first.put("stall")
    assert reply.get(timeout=TIMEOUT) == ("stalled", stalled.pid)
    second.put("read")
    with pytest.raises(queue.Empty):
        reply.get(timeout=0.3)  # it waits for the other
    os.kill(stalled.pid, how)  # the embedded fleet is on this machine
    begun = time.monotonic()
    assert reply.get(timeout=TIMEOUT) == ("total", int(numbers(1_000_000).sum()))
    assert time.monotonic() - begun < cluster.settings.lease
    for _, process in pairs:
        process.kill()
        process.join(TIMEOUT)


def reader(ctx: Any, shared: Any, commands: Any, reply: Any) -> Any:
    process = ctx.Process(target=targets.read_when_told, args=(shared, commands, reply), daemon=True)
    process.start()
    return process


def test_a_larger_one_than_hosts_read_is_refused_where_it_is_made(cluster: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(vars(cluster.settings), "message_size", 1 << 20)
    with pytest.raises(ValueError, match="CROSSHOST_MESSAGE_SIZE"):
        share.share(cluster.connect(), numbers(1_000_000))
    monkeypatch.undo()
    shared = cluster.share(numbers(1_000_000))
    monkeypatch.setitem(vars(cluster.settings), "message_size", 1 << 20)
    with pytest.raises(WrongKey, match="CROSSHOST_MESSAGE_SIZE"):  # a host that reads no more than that
        share._load(cluster.connect(), shared.name, shared._size, shared._kept)


def shared_keys(run: runs.Run, name: str = "") -> set[bytes]:
    """The keys of a shared object, or of all, of which the run knows."""
    gc.collect()
    return {key for key in run.store.call("SMEMBERS", run.key("keys")) if f":share:{name}".encode() in key}


def read_from_redis(ctx: Any) -> int:
    """How many pieces were read from Redis, ever."""
    stats = ctx.connect().store.call("INFO", "commandstats").decode()
    lines = [line for line in stats.splitlines() if line.startswith("cmdstat_getrange:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


def host_memory(size: int) -> list[str]:
    """The memory files of this size that some process of this machine has open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for fd in (process / "fd").iterdir():
                if "memfd:crosshost" in os.readlink(fd) and fd.stat().st_size == size:
                    found.append(str(fd))
        except OSError:
            continue
    return found


# A fleet that changes, and one whose Redis is full


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("share"), "--maxmemory", "60mb", hosts=1, slots=2, lease=2.0) as server:
        yield server


PROGRAM = """
import sys, numpy as np, lab
from tests.cluster import share_targets as targets
if __name__ == "__main__":
    ctx = lab.get_context("cluster")
    array = np.arange(1_000_000)
    shared = ctx.share(array)
    for line in sys.stdin:
        wanted, seen = set(line.split()), set()
        while not wanted <= seen:
            with ctx.Pool(4) as pool:
                for host, total in pool.map(targets.total_and_host, [shared] * 8, 1):
                    assert total == array.sum()
                    seen.add(host)
        print(*sorted(seen), flush=True)
    ctx.close()
"""


def test_a_host_that_joins_later_gets_it_and_one_that_dies_is_not_missed(server: Server, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=server.env
    ) as running:
        assert running.stdin
        assert running.stdout
        ask: Callable[[str], str] = lambda hosts: _asked(running, hosts)  # noqa: E731
        assert "host-1" in ask("host-1")
        server.add_host()
        assert "host-2" in ask("host-2")
        server.workers[0].kill()
        server.workers[0].wait(10)
        assert "host-2" in ask("host-2")
        running.stdin.close()
        assert running.wait(60) == 0


def _asked(running: subprocess.Popen[str], hosts: str) -> str:
    assert running.stdin
    assert running.stdout
    running.stdin.write(f"{hosts}\n")
    running.stdin.flush()
    return running.stdout.readline()


def test_a_redis_that_has_no_room_for_it_says_so_and_keeps_nothing_of_it(server: Server) -> None:
    run = runs.Run.as_root(server.settings, Store(server.url, patience=1.0))
    try:
        with pytest.raises(RedisFull):
            share.share(run, numbers(20_000_000))
        gc.collect()
        run.store.settle()
        assert not within(0.1, lambda: shared_keys(run))
    finally:
        run.close()
