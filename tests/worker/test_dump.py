"""Where a process is, as it writes it itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.kit.processes import die_with_us
from tests.kit.wait import until
from worker import dump
from worker.dump import SIGNAL, Dump

PROGRAM = """
import sys, threading
from worker import dump

def deep(n):
    return deep(n - 1) if n else ask()

def ask():
    print("up", flush=True)
    return sum(range(10**12))

def wait():
    threading.Event().wait()

exec(compile("def _bootstrap(*args):\\n    return deep(*args)\\n", dump._CHILD, "exec"))
dump.enable(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    threading.Thread(target=wait, daemon=True).start()
_bootstrap(int(sys.argv[3]))
"""


def asked(threads: int, depth: int, times: int = 1) -> list[list[dict[str, Any]]]:
    """What a process with so many threads more, and so many calls on its stack, answers each time."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-c", PROGRAM, str(write_end), str(threads), str(depth)]
    reader, found = Dump(read_end), []
    with subprocess.Popen(
        command, pass_fds=[write_end], stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us
    ) as process:
        try:
            os.close(write_end)
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            reader.read()  # which thread is the main one
            for n in range(times):
                reader.ask(str(n))
                os.kill(process.pid, SIGNAL)

                def answered() -> bool:
                    reader.read()
                    tickets, said = reader.answers()
                    found.extend([said] * len(tickets))
                    return bool(tickets)

                until(answered, "it answers", 10)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
    reader.close()
    return found


@pytest.mark.parametrize("threads", [0, 1, 30])
def test_each_dump_has_each_thread_once_though_it_comes_in_pieces(threads: int) -> None:
    for said in asked(threads, depth=3, times=20):
        assert len(said) == threads + 1
        assert said[0]["current"]
        assert [frame["function"] for frame in said[0]["frames"]] == ["ask", "deep", "deep", "deep", "deep"]
        assert all(any(frame["function"] == "wait" for frame in thread["frames"]) for thread in said[1:])


def test_a_deep_stack_ends_and_so_do_many_threads() -> None:
    (said,) = asked(0, depth=500)
    assert said[0]["frames"][0]["function"] == "ask"
    assert len(said[0]["frames"]) == 100
    (said,) = asked(150, depth=3)
    assert len(said) == 100


def test_the_program_s_own_files_are_told_from_ours_and_pythons() -> None:
    own = ["/srv/app/main.py", str(dump._ROOT / "lab" / "concepts" / "counter.py")]
    others = [subprocess.__file__, pytest.__file__, str(dump._ROOT / "lab" / "store" / "link.py"), "<frozen runpy>"]
    assert [dump._own(file) for file in own + others] == [True] * 2 + [False] * 4


def test_what_a_program_writes_to_the_pipe_is_no_dump() -> None:
    read_end, write_end = os.pipe()
    reader = Dump(read_end)
    os.write(write_end, b"not a number\n" * 3 + b"Thread 0x12 (most recent call first):\n")
    assert reader.read()
    reader.ask("a")
    assert reader.answers() == ([], [])
    os.close(write_end)
    assert not reader.read()
    reader.close()
    assert reader.closed
