"""What dies is missed, what it held is free, and nobody waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from lab.errors import WorkerLost
from lab.fleet.embedded import EmbeddedFleet
from lab.fleet.hosts import list_hosts
from lab.settings import Settings
from lab.store.store import Store
from tests.cluster import cluster_targets as targets
from tests.cluster import watch_targets
from tests.kit import variables
from tests.kit.processes import alive
from tests.kit.wait import until, within


def run_program(script: Path, text: str, timeout: float = 60, **settings: int) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with a fleet of its own that has these settings."""
    script.write_text(text)
    env = {**os.environ, **{f"CROSSHOST_{name}": str(value) for name, value in settings.items()}}
    return subprocess.run([sys.executable, script], env={**env, "PYTHONPATH": os.getcwd()},
                          capture_output=True, text=True, timeout=timeout)  # fmt: skip


def test_a_pool_worker_killed_in_the_middle_loses_no_call_and_counts_none_twice(cluster: Any) -> None:
    flag = cluster.Value("i", 0)
    with cluster.Pool(3, targets.use_flag, (flag,)) as pool:
        assert pool.map_async(targets.die_once_here, range(200), 1).get(30) == list(range(200))
        assert flag.value == 2  # it was begun twice, and answered once


def test_a_call_that_kills_every_worker_ends_as_worker_lost_and_the_others_are_kept(cluster: Any) -> None:
    with cluster.Pool(2) as pool:
        results = [pool.apply_async(targets.die_always_on_7, (i,)) for i in range(20)]
        with pytest.raises(WorkerLost, match="3 processes that took it died"):
            results[7].get(30)
        assert [r.get(30) for i, r in enumerate(results) if i != 7] == [i for i in range(20) if i != 7]


def test_a_slow_call_does_not_hold_up_the_quick_ones_behind_it(cluster: Any) -> None:
    with cluster.Pool(2) as pool:
        pool.map(targets.echo, range(2000), 1)  # both workers know how quick a call is, and take many at once
        begun = time.perf_counter()
        results = [pool.apply_async(targets.sleep_for, (2.0 if i == 20 else 0.0,)) for i in range(400)]
        for i, result in enumerate(results):
            if i != 20:
                result.get(10)
        assert time.perf_counter() - begun < 1.5
        assert results[20].get(10) == 2.0


@pytest.mark.parametrize("kill", [targets.kill_my_forker, targets.kill_my_supervisor])
def test_processes_whose_forker_or_supervisor_is_killed_end_as_killed_and_the_host_goes_on(
    cluster: Any, kill: Any
) -> None:
    process = cluster.Process(target=kill)
    process.start()
    begun = time.monotonic()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert time.monotonic() - begun < cluster.settings.lease
    everywhere = [cluster.Process(target=targets.sleep_for, args=(0.2,)) for _ in range(12)]
    for process in everywhere:
        process.start()
    for process in everywhere:
        process.join(20)
    assert [process.exitcode for process in everywhere] == [0] * 12
    assert {process.host for process in everywhere} == {host.name for host in cluster.fleet()}


def test_hosts_take_more_processes_than_they_have_slots_and_evenly(cluster: Any) -> None:
    go, hosts = cluster.Event(), cluster.fleet()
    crowd = [cluster.Process(target=targets.wait_for, args=(go,)) for _ in range(5 * sum(host.slots for host in hosts))]
    for process in crowd:
        process.start()
    on = Counter(process.host for process in crowd)
    go.set()
    for process in crowd:
        process.join(20)
    assert [process.exitcode for process in crowd] == [0] * len(crowd)
    assert set(on) == {host.name for host in hosts}
    assert max(on.values()) - min(on.values()) <= 2


def test_a_pool_may_be_larger_than_the_fleet(cluster: Any) -> None:
    with cluster.Pool(cluster.cpu_count() * 2) as pool:
        assert pool.map(abs, range(-100, 0), 1) == list(range(100, 0, -1))
        pool.close()
        pool.join()


def test_what_a_process_leaves_behind_holds_neither_its_end_nor_its_output(cluster: Any, capfd: Any) -> None:
    here, there = cluster.Pipe()
    process = cluster.Process(target=targets.leave_a_sleeper, args=(there,), daemon=True)
    process.start()
    begun = time.monotonic()
    process.join(10)
    sleeper = here.recv()
    try:
        assert process.exitcode == 0
        assert time.monotonic() - begun < 5
        os.kill(sleeper, 0)  # it is there
        until(lambda: process.host not in [h.name for h in cluster.fleet() if h.busy], "its slot is free")
        assert "printed before the fork" in capfd.readouterr().out
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_what_a_call_leaves_behind_does_not_hold_the_pool(cluster: Any) -> None:
    with cluster.Pool(2) as pool:
        sleepers = pool.map(targets.leave_a_sleeper_in_a_call, range(2), 1)
        try:
            begun = time.monotonic()
            pool.close()
            pool.join()
            assert time.monotonic() - begun < 5
        finally:
            for sleeper in sleepers:
                os.kill(sleeper, signal.SIGKILL)


def test_a_process_that_is_stopped_for_longer_than_its_lease_is_taken_for_dead_and_no_other(cluster: Any) -> None:
    go = cluster.Event()
    stopped, other = (cluster.Process(target=targets.wait_for, args=(go,)) for _ in range(2))
    stopped.start()
    other.start()
    os.kill(stopped.pid, signal.SIGSTOP)
    stopped.join(cluster.settings.lease * 2)
    assert stopped.exitcode == -signal.SIGKILL
    assert other.is_alive()
    os.kill(stopped.pid, signal.SIGCONT)
    until(lambda: not alive(stopped.pid), "what is dead to its program is ended by its host", 15)
    go.set()
    other.join(10)
    assert other.exitcode == 0


def test_a_process_that_is_stopped_for_a_moment_lives(cluster: Any) -> None:
    go = cluster.Event()
    process = cluster.Process(target=targets.wait_for, args=(go,))
    process.start()
    os.kill(process.pid, signal.SIGSTOP)
    assert not within(cluster.settings.lease / 3, lambda: process.exitcode is not None)
    os.kill(process.pid, signal.SIGCONT)
    assert not within(cluster.settings.lease * 1.2, lambda: process.exitcode is not None)
    go.set()
    process.join(10)
    assert process.exitcode == 0


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_whose_holder_was_killed_is_handed_to_who_waits(cluster: Any, kind: str) -> None:
    lock, held = getattr(cluster, kind)(), cluster.Event()
    holder = cluster.Process(target=targets.hold, args=(lock, held))
    holder.start()
    assert held.wait(10)
    assert not lock.acquire(block=False)
    holder.kill()
    assert lock.acquire(timeout=10)
    lock.release()
    holder.join(10)


def test_a_lock_that_a_process_forgot_stays_locked_if_it_ended_well_and_is_free_if_it_failed(cluster: Any) -> None:
    lock = cluster.Lock()
    for code in (0, 3):
        process = cluster.Process(target=targets.take_and_leave, args=(lock, code))
        process.start()
        process.join(10)
        assert process.exitcode == code
        assert lock.acquire(timeout=0.5) == (code != 0)
        lock.release()  # another may release it, as in multiprocessing


def test_a_lock_is_not_handed_to_a_dead_waiter(cluster: Any) -> None:
    lock = cluster.Lock()
    lock.acquire()
    waiter = cluster.Process(target=targets.take_and_leave, args=(lock,))
    waiter.start()
    queue = f"{lock._semlock.name}:waiters"
    until(lambda: cluster.connect().store.call("LLEN", queue), "it waits for the lock", 10)
    waiter.kill()
    waiter.join(10)
    lock.release()
    assert lock.acquire(timeout=5)


def test_end_of_file_is_read_when_the_holder_of_the_other_end_is_killed(cluster: Any) -> None:
    here, there = cluster.Pipe()
    never = cluster.Event()
    process = cluster.Process(target=hold_end, args=(there, never))
    process.start()
    there.close()
    assert not here.poll(0.2)
    process.kill()
    with pytest.raises(EOFError):
        here.recv()
    process.join(10)


def hold_end(conn: Any, never: Any) -> None:
    never.wait(60)
    conn.close()


def test_the_late_write_of_a_process_that_was_taken_for_dead_is_refused(cluster: Any) -> None:
    run = cluster.connect()
    value, ready, go, tell = cluster.Value("i", 1), cluster.Event(), cluster.Event(), cluster.Queue()
    process = cluster.Process(target=targets.write_on_demand, args=(value, ready, go, tell))
    process.start()
    assert ready.wait(10)
    # what the root does to a process whose lease has lapsed; its host has not noticed yet
    run.store.call("ZADD", run.key("processes"), 0, process._popen.process_id)
    run.bury(process._popen.process_id, run.mailbox, -signal.SIGKILL, host_lost=True, lapsed_only=True)
    go.set()
    process.join(10)
    assert process.exitcode != 0
    assert value.value == 1


def test_no_room_is_an_error_that_names_what_is_lacking_and_comes_in_time(tmp_path: Any) -> None:
    program = (
        "import lab, time\n"
        "from lab.errors import NotEnoughSlots\n"
        "from tests.cluster.cluster_targets import wait_for, nothing\n"
        "if __name__ == '__main__':\n"
        "    with lab.get_context('cluster') as ctx:\n"
        "        go = ctx.Event()\n"
        "        full = [ctx.Process(target=wait_for, args=(go,)) for _ in range(2)]\n"
        "        for p in full: p.start()\n"
        "        print('hosts', len({p.host for p in full}))\n"  # the second was not hidden behind the first
        "        begun = time.monotonic()\n"
        "        try: ctx.Process(target=nothing).start()\n"
        "        except NotEnoughSlots as exc: print('seconds', round(time.monotonic() - begun), exc)\n"
        "        try: ctx.Pool(1)\n"
        "        except NotEnoughSlots as exc: print('pool', exc.message)\n"
        "        go.set()\n"
        "        for p in full: p.join()\n"
        "        late = ctx.Process(target=nothing); late.start(); late.join(); print('late', late.exitcode)\n"
    )
    done = run_program(tmp_path / "few.py", program, HOSTS=2, SLOTS=1, MOST_PROCESSES=1, START_TIMEOUT=2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "hosts 2"
    lacks = (
        "No host had room for the process within 2 s: 2 processes on 2 hosts, which lack CROSSHOST_MOST_PROCESSES=1."
    )
    assert lines[1] == f"seconds 2 {lacks}"
    assert "A limit was set there" in lines[2]
    assert lines[-2] == f"pool {lacks}"
    assert lines[-1] == "late 0"


def test_nothing_of_a_run_is_left_in_redis_and_every_key_of_it_expires(cluster: Any) -> None:
    program = (
        "import lab, sys\n"
        "from tests.cluster.cluster_targets import echo, nothing\n"
        "ctx = lab.get_context('cluster'); run = ctx.connect(); print(run.id, flush=True)\n"
        "q = ctx.Queue(); q.put(1); a, b = ctx.Pipe(); a.send(1); lock = ctx.Lock(); lock.acquire(); v = ctx.Value('i')\n"
        "p = ctx.Process(target=nothing); p.start(); p.join()\n"
        "pool = ctx.Pool(2); pool.map(echo, range(100))\n"
        "print('ready', flush=True); sys.stdin.read()\n"
        "pool.terminate()\n"
    )
    cluster.connect()
    env = variables.leading_to(cluster.settings)
    client = redis.Redis.from_url(cluster.settings.broker_url)
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin
        assert process.stdout
        run_id = process.stdout.readline().strip()
        assert process.stdout.readline() == "ready\n"
        keys = list(client.scan_iter(f"crosshost:{{{run_id}}}:*", count=1000))
        assert len(keys) > 8
        assert [key for key in keys if client.ttl(key) == -1] == []
        process.stdin.close()
        assert process.wait(20) == 0
    assert list(client.scan_iter(f"crosshost:{{{run_id}}}:*", count=1000)) == []


def test_a_broker_that_dies_ends_every_wait_with_an_error_and_the_program_ends(tmp_path: Any) -> None:
    program = (
        "import lab, os, re, signal\n"
        "from lab.errors import BrokerUnreachable\n"
        "from tests.cluster.cluster_targets import sleep_for\n"
        "if __name__ == '__main__':\n"
        "    ctx = lab.get_context('cluster')\n"
        "    server = int(re.search(rb'process_id:(\\d+)', ctx.connect().store.call('INFO', 'server'))[1])\n"
        "    pool, queue, lock = ctx.Pool(2), ctx.Queue(), ctx.Lock()\n"
        "    result = pool.map_async(sleep_for, [0.05] * 200, 1)\n"
        "    result.ready() or os.kill(server, signal.SIGKILL)\n"
        "    for wait in (lambda: result.get(20), lambda: pool.apply(sleep_for, (0,)), queue.get, lock.acquire):\n"
        "        try: wait()\n"
        "        except BrokerUnreachable: print('unreachable', flush=True)\n"
        "    pool.terminate(); pool.join(); ctx.close(); print('closed', flush=True)\n"
    )
    done = run_program(tmp_path / "broker.py", program, HOSTS=1, SLOTS=2, LEASE=2, OUTAGE=1)
    assert done.stdout.split() == ["unreachable"] * 4 + ["closed"], done.stdout + done.stderr
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_pool_whose_dead_worker_finds_no_room_goes_on_with_the_others(tmp_path: Any) -> None:
    program = (
        "import lab, os, signal, time\n"
        "from tests.cluster.cluster_targets import echo\n"
        "if __name__ == '__main__':\n"
        "    with lab.get_context('cluster') as ctx:\n"
        "        pool = ctx.Pool(2)\n"
        "        first = pool._pool[0]\n"
        "        os.kill(host := [h.pid for h in ctx.fleet() if h.name == first.host][0], signal.SIGKILL)\n"  # a whole host
        "        print(pool.map(echo, range(50), 1) == list(range(50)), flush=True)\n"
        "        first.join(); print(first.exitcode, flush=True)\n"
        "        print(pool.map(echo, range(50), 1) == list(range(50)), flush=True)\n"
        "        while not pool._told: time.sleep(0.05)\n"  # for as long as the pool works, there is no room
        "        pool.close(); pool.join(); print('closed', flush=True)\n"
    )
    done = run_program(tmp_path / "smaller.py", program, HOSTS=2, SLOTS=1, MOST_PROCESSES=1, LEASE=2, START_TIMEOUT=1)
    assert done.stdout.split() == ["True", "-9", "True", "closed"], done.stdout + done.stderr
    assert "could not be replaced" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_call_whose_hosts_are_lost_again_and_again_is_not_blamed_for_it(tmp_path: Any) -> None:
    program = (
        "import lab\n"
        "from tests.cluster.cluster_targets import count_lost_in, lose_the_host\n"
        "if __name__ == '__main__':\n"
        "    with lab.get_context('cluster') as ctx:\n"
        "        pool = ctx.Pool(1, count_lost_in, (ctx.Value('i', 0, lock=False),))\n"
        "        print(pool.apply(lose_the_host, (4,)))\n"
        "        pool.terminate(); pool.join()\n"
    )
    done = run_program(tmp_path / "unlucky.py", program, timeout=90, HOSTS=1, SLOTS=2, LEASE=1)
    assert done.stdout.split() == ["4"], done.stdout + done.stderr


def test_a_program_that_is_killed_frees_its_slots_and_its_keys_expire() -> None:
    program = (
        "import lab, time\n"
        "from tests.cluster.cluster_targets import sleep_for\n"
        "ctx = lab.get_context('cluster'); run = ctx.connect(); q = ctx.Queue(); q.put(1); v = ctx.Value('i')\n"
        "p = ctx.Process(target=sleep_for, args=(600,)); p.start(); print(run.id, flush=True); time.sleep(600)\n"
    )
    with EmbeddedFleet(Settings(hosts=1, slots=2, lease=0.5)) as fleet:
        settings = fleet.start()
        env = variables.leading_to(settings)
        with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            run_id = process.stdout.readline().strip()
            process.kill()
        store = Store(settings.broker_url)
        client = redis.Redis.from_url(settings.broker_url)

        def left() -> list[object]:
            return [host.name for host in list_hosts(store) if host.busy] + list(client.scan_iter(f"*{run_id}*"))

        assert left()
        deadline = time.monotonic() + 20
        while left():
            assert time.monotonic() < deadline, left()
            time.sleep(0.1)


def test_a_child_learns_of_its_parents_end_within_the_lease(cluster: Any) -> None:
    reader, writer = cluster.Pipe(duplex=False)
    parent = cluster.Process(target=watch_targets.have_a_child_on_the_cluster, args=(writer,), name="the parent")
    parent.start()
    assert reader.poll(20)
    assert reader.recv() == ("the parent", True)
    parent.kill()
    parent.join(20)
    assert reader.poll(20)
    alive, seconds = reader.recv()
    assert not alive
    assert seconds < cluster.settings.lease + 5


def test_an_interrupted_child_ends_by_a_keyboard_interrupt(cluster: Any) -> None:
    reader, writer = cluster.Pipe(duplex=False)
    child = cluster.Process(target=watch_targets.hold, args=(writer,))
    child.start()
    assert reader.poll(20)
    child._popen.interrupt()  # what Process.interrupt() calls, since Python 3.14
    child.join(20)
    assert child.exitcode == 1


def test_closing_the_context_ends_no_process_of_this_host(tmp_path: Path) -> None:
    text = """
import multiprocessing, time
import lab
if __name__ == "__main__":
    here = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    here.start()
    with lab.get_context("cluster") as ctx:
        there = ctx.Process(target=time.sleep, args=(60,))
        there.start()
    print(here.is_alive(), there.exitcode)
"""
    done = run_program(tmp_path / "program.py", text, HOSTS=1, SLOTS=1)
    assert done.stdout == "True -9\n", done.stderr
