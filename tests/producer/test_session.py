"""Nothing is left of a program that ran in a session: no process, and no semaphore with a name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from producer.session import MOST, Session
from tests.kit.processes import alive

LOCKED = """
import multiprocessing as mp, os, sys

def stand(lock):
    print(os.getpid(), flush=True)
    lock.acquire()

if __name__ == "__main__":
    ctx = mp.get_context("spawn")
    lock = ctx.Lock()
    print(lock._semlock.name, flush=True)
    lock.acquire()
    child = ctx.Process(target=stand, args=(lock,), daemon=True)
    child.start()
    child.join(float(sys.argv[1]))
    os._exit(7)
"""


@pytest.mark.parametrize(("joins", "code"), [("60", None), ("2", 7)], ids=["is ended", "leaves a child"])
def test_nothing_is_left(joins: str, code: int | None, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LOCKED)
    with Session([sys.executable, str(program), joins]) as session:
        assert session.wait(4.0) == code
    name, child = session.out.split()
    assert not Path(f"/dev/shm/sem.{name.removeprefix('/')}").exists()
    assert not alive(int(child))
    assert (session.code, session.err) == (code, "")


def test_an_interrupt_ends_it_too() -> None:
    with pytest.raises(KeyboardInterrupt), Session([sys.executable, "-c", "import time; time.sleep(60)"]) as session:
        raise KeyboardInterrupt
    assert session.code is None
    assert not alive(session.pid)


def test_its_output_and_its_code_are_kept() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); print(sys.stdin.read()); sys.exit(3)"
    with Session([sys.executable, "-c", code]) as session:
        session.wait(30)
    assert (session.out, session.err, session.code) == ("out\n\n", "err\n", 3)


def test_the_last_of_an_output_without_end_is_kept_and_in_order() -> None:
    for _ in range(5):
        code = "import itertools\nfor n in itertools.count(): print(n)"
        with Session([sys.executable, "-c", code]) as session:
            assert session.wait(0.7) is None
        assert 0 < len(session.out) <= MOST
        numbers = list(map(int, session.out.split("\n")[1:-1]))
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
