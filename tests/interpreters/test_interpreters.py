"""What is different between interpreters and processes."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("concurrent.interpreters", reason="Python has interpreters since 3.14; the containers have it")

import lab
from lab.interpreters import popen
from tests import ROOT
from tests.cluster.contract_targets import TIMEOUT
from tests.interpreters import interpreter_targets as targets


def started(ctx: Any, target: Any, *args: Any) -> Any:
    child = ctx.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def program(tmp_path: Path, text: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a program with a main guard around its last part."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=timeout, env=env)


def test_children_share_the_process_and_no_module(ctx: Any) -> None:
    reply = ctx.Queue()
    for word in ("one", "two"):
        started(ctx, targets.remember, word, reply).join(TIMEOUT)
    answers = [reply.get(timeout=TIMEOUT) for _ in range(2)]
    assert {pid for pid, *_ in answers} == {os.getpid()}
    assert len({thread for _, thread, _ in answers}) == 2
    assert sorted(words for *_, words in answers) == [["one"], ["two"]]
    assert targets.seen == []


def longest_pause(ctx: Any) -> float:
    """How much of the time in which a child holds its GIL this thread had to wait at a stretch, from 0 to 1."""
    go, taken = ctx.RawValue("i", 0), ctx.RawValue("d", 0.0)
    child = started(ctx, targets.hold_its_lock, go, taken)
    worst, before, over = 0.0, time.perf_counter(), False
    go.value = 1
    while not over:
        over, now = bool(taken.value), time.perf_counter()
        worst, before = max(worst, now - before), now
    child.join(TIMEOUT)
    return worst / float(taken.value)


def test_each_has_an_interpreter_lock_of_its_own(ctx: Any) -> None:
    assert longest_pause(ctx) < 0.5
    assert longest_pause(lab.get_context("threads")) > 0.5


def test_a_token_is_a_lock(ctx: Any) -> None:
    value, token = ctx.RawValue("i", 0), ctx.Token()
    children = [started(ctx, targets.count, value, token, 50) for _ in range(4)]
    for child in children:
        child.join(TIMEOUT)
    assert value.value == 200


@pytest.mark.parametrize("way", ["terminate", "kill", "interrupt"])
def test_one_cannot_be_ended_from_outside(ctx: Any, way: str) -> None:
    child = ctx.Process(target=targets.raise_error)
    with pytest.raises(NotImplementedError, match="ask it to return, with an Event"):
        getattr(child, way)()


def test_what_does_not_pickle_leaves_no_descriptor(ctx: Any) -> None:
    queue = ctx.Queue()
    before = len(os.listdir("/dev/fd"))
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        ctx.Process(target=targets.remember, args=(queue, lambda: None)).start()
    assert len(os.listdir("/dev/fd")) == before


def test_what_comes_with_a_child_leaves_no_descriptor(ctx: Any) -> None:
    def after(many: int) -> int:
        for _ in range(many):
            shared = ctx.Value("i", 0), ctx.Array("i", 3), ctx.Barrier(2), ctx.Queue(), ctx.Pipe()[0]
            child = started(ctx, targets.take, *shared)
            child.join(TIMEOUT)
            assert child.exitcode == 0
        del shared, child
        gc.collect()
        return len(os.listdir("/dev/fd"))

    before = after(2)
    assert after(12) <= before + 2


def test_a_child_leaves_the_directory_alone(ctx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reply = ctx.Queue()
    child = started(ctx, targets.where, reply)
    os.chdir("/")
    assert reply.get(timeout=TIMEOUT) == "/"
    child.join(TIMEOUT)
    assert os.getcwd() == "/"


@pytest.mark.parametrize("what", ["Pool", "Manager", "share"])
def test_what_a_child_has_not_is_refused(ctx: Any, what: str) -> None:
    reply = ctx.Queue()
    child = started(ctx, targets.ask_for, ctx, what, reply)
    assert reply.get(timeout=TIMEOUT) == "NotImplementedError"
    child.join(TIMEOUT)
    assert child.exitcode == 0


def test_a_child_that_closed_its_standard_input_ends_well(ctx: Any) -> None:
    child = started(ctx, targets.close_stdin)
    child.join(TIMEOUT)
    assert child.exitcode == 0


def test_there_is_no_manager_and_it_says_why(ctx: Any) -> None:
    with pytest.raises(NotImplementedError, match="daemon threads"):
        ctx.Manager()


def test_a_childs_own_daemon_threads_are_refused_as_python_does(ctx: Any) -> None:
    reply = ctx.Queue()
    started(ctx, targets.refuse_daemon, reply)
    assert "daemon" in reply.get(timeout=TIMEOUT)


def test_what_a_child_put_arrives_although_it_ended_at_once(ctx: Any) -> None:
    queue = ctx.Queue()
    child = started(ctx, targets.fill, queue, 1_000_000)
    assert len(queue.get(timeout=TIMEOUT)) == 1_000_000
    child.join(TIMEOUT)
    assert child.exitcode == 0


def test_a_child_has_children(ctx: Any) -> None:
    reply = ctx.Queue()
    child = ctx.Process(target=targets.start_another, args=(ctx, reply))
    child.start()
    pid, _, words = reply.get(timeout=TIMEOUT)
    assert (pid, words) == (os.getpid(), ["grandchild"])
    assert reply.get(timeout=TIMEOUT) == 0
    child.join(TIMEOUT)
    assert child.exitcode == 0


def test_what_ends_a_child_is_told_on_stderr(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    child = started(ctx, targets.raise_error)
    child.join(TIMEOUT)
    assert child.exitcode == 1
    assert "ValueError: said by the child" in capfd.readouterr().err


def test_an_extension_that_refuses_interpreters_is_named(ctx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    child = started(ctx, targets.import_module, "faulthandler")  # one of Python's own that has stayed so
    child.join(TIMEOUT)
    if child.exitcode == 0:
        pytest.skip("this Python's faulthandler may be used by several interpreters")
    assert "module faulthandler does not support loading in subinterpreters" in capfd.readouterr().err


def test_a_pool_that_was_left_open_does_not_keep_the_program(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        import lab

        if __name__ == "__main__":
            pool = lab.get_context("interpreters").Pool(2)
            print(pool.map(abs, [-1, -2]))
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 2]\n", "")


def test_a_pool_that_is_left_with_large_answers_under_way_does_not_keep_the_program(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        import lab

        def large(n):
            return bytes(1_000_000)

        if __name__ == "__main__":
            with lab.get_context("interpreters").Pool(2) as pool:
                for answer in pool.imap_unordered(large, range(100)):
                    break
            print(len(answer))
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000000\n", "")


def test_a_daemon_that_never_ends_ends_with_the_process_and_is_named(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        f"""
        import lab
        from lab.interpreters import popen
        from tests.interpreters.interpreter_targets import stay

        if __name__ == "__main__":
            popen.PATIENCE = {popen.PATIENCE / 5}
            ctx = lab.get_context("interpreters")
            ready = ctx.Queue()
            ctx.Process(target=stay, args=(ready,), name="the one that stays", daemon=True).start()
            ready.get()
            print("over")
        """,
    )
    assert done.returncode == 1
    assert done.stdout == "over\n"
    assert "crosshost: the one that stays: still at work at the end of the program" in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "leaked"))


def test_a_child_that_is_no_daemon_is_waited_for(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        import time
        import lab

        def late():
            time.sleep(0.5)
            print("late", flush=True)

        if __name__ == "__main__":
            lab.get_context("interpreters").Process(target=late).start()
            print("main is over", flush=True)
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "main is over\nlate\n", "")
