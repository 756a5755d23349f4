"""What pickle finds no name for travels to hosts by value; and what cannot travel at all is named."""

from __future__ import annotations

import io
import pickle
import socket
import textwrap
import threading
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lab
from lab import byvalue
from lab.errors import ProgramTooLarge
from lab.program import shipped, source
from lab.watching.functions import function_of
from tests import ROOT
from tests.program.test_run_script import python, write

TIMEOUT = 30


def at_module_level(x: int) -> int:
    return x + 1


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def local_class() -> Any:
    class Local:
        made = 0

        def __init__(self, x: int) -> None:
            self.x = x

        def doubled(self) -> Local:
            return type(self)(2 * self.x)

    return Local


@pytest.fixture(scope="module")
def pool(cluster: Any) -> Any:
    with cluster.Pool(2) as pool:
        yield pool


def test_a_pool_takes_lambdas_closures_and_local_functions(pool: Any) -> None:
    factor = 3

    def local(x: int) -> int:
        return at_module_level(x) * factor

    assert pool.map(lambda x: x * factor, [1, 2]) == [3, 6]
    assert pool.map(adder(10), [1, 2]) == [11, 12]
    assert pool.apply(local, (1,)) == 6
    assert list(pool.imap(local, [1, 2])) == [6, 9]
    assert pool.apply(sorted, ([3, 1, 2],), {"key": lambda n: -n}) == [3, 2, 1]


def test_what_a_function_refers_to_is_as_it_is_when_it_is_called(pool: Any) -> None:
    factor = 3

    def times(x: int) -> int:
        return x * factor

    assert pool.map(times, [1, 2]) == [3, 6]
    factor = 4
    assert pool.map(times, [1, 2]) == [4, 8]


def test_an_instance_comes_back_as_one_of_the_very_class_which_stays_as_it_was(pool: Any) -> None:
    Local = local_class()
    methods = dict(vars(Local))
    results = pool.map(Local.doubled, [Local(1), Local(2)])
    assert [(type(result) is Local, result.x) for result in results] == [(True, 2), (True, 4)]
    assert {name: vars(Local)[name] for name in methods} == methods
    Local.doubled = lambda self: Local(self.x + 100)  # a later cell
    assert pool.apply(lambda one: one.doubled().x, (Local(1),)) == 101


def test_an_exception_of_a_local_class_is_caught_by_it(pool: Any) -> None:
    class Refused(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a, b)

    def refuse(x: int) -> None:
        raise Refused(x, 2)

    with pytest.raises(Refused) as refused:
        pool.apply(refuse, (1,))
    assert refused.value.args == (1, 2)


def test_named_tuples_caches_and_recursion_travel(pool: Any) -> None:
    class Pair(NamedTuple):
        a: int
        b: int

    @lru_cache
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    pair = pool.apply(lambda pair: pair._replace(b=5), (Pair(1, 2),))
    assert (type(pair) is Pair, pair) == (True, Pair(1, 5))
    assert pool.map(fibonacci, [20, 30]) == [6765, 832040]


def test_processes_queues_pipes_managers_and_executors_take_them(cluster: Any) -> None:
    queue, (ours, theirs), shared = cluster.Queue(), cluster.Pipe(), cluster.Value("i", 0)

    def child() -> None:
        queue.put(lambda: "from the child")
        theirs.send(adder(1))
        shared.value = 7

    process = cluster.Process(target=child)  # and its primitives with it, as with the arguments of a process
    process.start()
    assert queue.get(timeout=TIMEOUT)() == "from the child"
    assert ours.recv()(1) == 2
    process.join(TIMEOUT)
    assert (process.exitcode, shared.value) == (0, 7)
    with cluster.Manager() as manager:
        managed = manager.dict(first=lambda: 1)
        managed["second"] = adder(5)
        assert (managed["first"](), managed["second"](1)) == (1, 6)
    with lab.get_executor("cluster", 1, initializer=lambda: None) as executor:
        assert executor.submit(adder(2), 1).result(TIMEOUT) == 3
        assert list(executor.map(lambda x: x * x, range(3))) == [0, 1, 4]


def test_a_function_may_refer_to_the_context(pool: Any, cluster: Any) -> None:
    assert pool.apply(lambda: cluster.place) == "cluster"


def test_a_result_is_not_a_function_that_the_call_has_made_as_in_multiprocessing(pool: Any) -> None:
    with pytest.raises(MaybeEncodingError):
        pool.apply(adder, (1,))
    handed_over = adder(1)
    assert pool.apply(lambda function: [function], (handed_over,))[0](1) == 2
    assert pool.map(at_module_level, [1]) == [2]


LOCK, SOCKET = threading.Lock(), socket.socket()


def locked(x: int) -> int:
    with LOCK:
        return x


@pytest.mark.parametrize("how", ["closure", "module", "default", "argument of another"])
def test_a_lock_that_a_function_refers_to_is_named_with_it(pool: Any, how: str) -> None:
    lock = threading.Lock()

    def default(_x: int, held: Any = lock) -> Any:
        return held

    functions: dict[str, tuple[Callable[[Any], Any], str, str]] = {
        "closure": (lambda _: lock, "lock", "<lambda>"),
        "module": (lambda _: LOCK, "LOCK", "<lambda>"),
        "default": (default, "held", "default"),
        "argument of another": (lambda x: default(x), "held", "default"),
    }
    function, variable, name = functions[how]
    with pytest.raises(TypeError, match="cannot pickle '_thread") as refused:
        pool.map(function, [1])
    (line,) = str(refused.value).splitlines()
    assert repr(variable) in line
    assert f"{name}'" in line
    assert pool.map(at_module_level, [1]) == [2]


def test_a_socket_of_this_host_is_refused_in_one_line(pool: Any) -> None:
    ours = SOCKET
    calls: list[tuple[Any, ...]] = [(lambda: ours,), (at_module_level, (ours,))]
    for call in calls:
        with pytest.raises(OSError, match="a socket of this host cannot be sent to another one") as refused:
            pool.apply(*call)
        assert len(str(refused.value).splitlines()) == 1
    assert pool.map(at_module_level, [1]) == [2]


def test_a_closure_that_is_too_large_is_refused_before_it_is_copied(pool: Any, cluster: Any) -> None:
    large = bytearray(byvalue.MOST + 1)
    parts = [bytes(1 << 20)] * 200
    for function, name in ((lambda: large, "large"), (lambda: parts, "parts")):
        with pytest.raises(ProgramTooLarge, match="MB are the most") as refused:
            pool.apply(function)
        assert f"of which {name!r} has" in refused.value.message
        assert "Process(args=...)" in refused.value.hint
        with pytest.raises(ProgramTooLarge):
            cluster.Process(target=function).start()
    assert pool.map(at_module_level, [1]) == [2]


def test_what_has_a_name_is_pickled_by_it_alone() -> None:
    for thing in (at_module_level, TimeoutError, [1, {"a": local_class}], ValueError("x"), len, io.StringIO):
        assert bytes(byvalue.dumps(thing)) == bytes(ForkingPickler.dumps(thing))


def test_what_cannot_travel_is_refused_as_by_pickle() -> None:
    for thing in ((n for n in range(1)), threading.Lock(), open(__file__), memoryview(b"")):
        with pytest.raises(TypeError) as theirs:
            ForkingPickler.dumps(thing)
        with pytest.raises(TypeError) as ours:
            byvalue.dumps(thing)
        assert str(ours.value) == str(theirs.value)


def test_who_watches_sees_the_name_of_a_function_that_travels_by_value() -> None:
    for function, name in ((adder(1), "adder.<locals>.<lambda>"), (at_module_level, f"{__name__}.at_module_level")):
        assert function_of(bytes(byvalue.dumps((1, 2, pickle.loads, ((function, [1]),))))) in (name, "_pickle.loads")
        assert function_of(bytes(byvalue.dumps((function, (1,), {})))) == name


SESSION = """
import dataclasses, enum, lab, neighbour
FACTOR = 2
def helper(x): return x * FACTOR
def work(x): return helper(x) + neighbour.one
@dataclasses.dataclass
class Point:
    x: int
    def moved(self): return Point(self.x + 1)
class Colour(enum.Enum):
    RED = 1
class Refused(Exception): pass
def refuse(): raise Refused("no")
def child(queue): queue.put(Point(5))
ctx = lab.get_context("{place}")
with ctx.Pool(2) as pool:
    print(pool.map(work, [1, 2]))
    FACTOR = 3
    def helper(x): return -x * FACTOR
    print(pool.map(work, [1, 2]))
    moved = pool.map(Point.moved, [Point(1)])
    print(moved == [Point(2)], type(moved[0]) is Point, pool.apply(lambda: Colour.RED) is Colour.RED)
    try: pool.apply(refuse)
    except Refused as error: print("refused", error)
queue = ctx.Queue()
process = ctx.Process(target=child, args=(queue,))
process.start(); print(queue.get()); process.join(); print(process.exitcode)
with lab.get_executor("{place}", 1) as executor:
    print(executor.submit(lambda: Point(3)).result() == Point(3))
"""
SAID = "[3, 5]\n[-2, -5]\nTrue True True\nrefused no\nPoint(x=5)\n0\nTrue\n"


@pytest.mark.parametrize("place", ["processes", "cluster"])
@pytest.mark.parametrize("how", ["-c", "standard input", "a prompt", "beyond a file"])
def test_a_program_that_nobody_can_run_again_has_what_it_defines_by_value(
    how: str, place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "neighbour.py", "one = 1\n")
    program = SESSION.replace("{place}", place)
    typed = f"exec({program!r}, globals())\n"
    write(tmp_path, "file.py", "print('the file runs')\ndef helper(x): return 0\n")
    command, given = {
        "-c": (["-c", program], ""),
        "standard input": (["-"], program),
        "a prompt": (["-q", "-i"], typed),
        "beyond a file": (["-q", "-i", "file.py"], typed),
    }[how]
    env = {**fleet, "PYTHONPATH": str(ROOT)}
    done = python(*command, cwd=tmp_path, env=env, input=given)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ("the file runs\n" if how == "beyond a file" else "") + SAID


@pytest.mark.parametrize("place", ["processes", "cluster"])
def test_what_an_initializer_assigns_is_there_for_the_calls_of_a_session(
    place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    program = """
import lab
total = None
def begin(shared, n):
    global lock, total
    lock, total = shared, n
def work(n):
    with lock: return n + total + other
other = 1
ctx = lab.get_context("PLACE")
with ctx.Pool(2, begin, (ctx.Lock(), 10)) as pool:
    print(pool.map(work, [1, 2]))
    other = 2
    print(pool.map(work, [1, 2]))
with lab.get_executor("PLACE", 1, initializer=begin, initargs=(ctx.Lock(), 20)) as executor:
    print(executor.submit(work, 1).result())
""".replace("PLACE", place)
    done = python("-", cwd=tmp_path, env={**fleet, "PYTHONPATH": str(ROOT)}, input=program)
    assert (done.stdout, done.stderr) == ("[12, 13]\n[13, 14]\n23\n", "")


def test_what_is_defined_under_the_guard_travels_by_value(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "script.py", """
        import collections
        from multiprocessing import Pool, Process, Queue
        def helper(x): return x * 2
        if __name__ == "__main__":
            FACTOR = 5
            def work(x): return helper(x) * FACTOR
            class Point:
                def __init__(self, x): self.x = x
                def moved(self): return Point(work(self.x))
            class Teller(Process):
                def run(self): queue.put(Point(3).moved().x)
            Pair = collections.namedtuple("Pair", "a b")
            def begin():
                global ready
                ready = True
            def see(x): return x, ready
            with Pool(2) as pool:
                print(pool.map(work, [1, 2]), pool.starmap(Pair, [(1, 2)]), type(pool.apply(Point(1).moved)) is Point)
            with Pool(1, begin) as pool: print(pool.map(see, [1]))
            queue = Queue()
            teller = Teller()
            teller.start()
            print(queue.get())
            teller.join()
    """)  # fmt: skip
    plain, hosts = (
        python("script.py", cwd=tmp_path),
        python("-m", "producer", "run", "script.py", cwd=tmp_path, env=fleet),
    )
    assert (hosts.stdout, hosts.stderr) == (plain.stdout, "")
    assert plain.stdout == "[10, 20] [Pair(a=1, b=2)] True\n[(1, True)]\n30\n"


def test_what_a_session_imports_from_beside_it_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import multiprocessing.process
    import sys
    import types

    write(tmp_path, "beside.py", "from package import part\n")
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/part.py", "")
    write(tmp_path, "unused.py", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert shipped.collect() is None
    monkeypatch.setitem(sys.modules, "beside", types.ModuleType("beside"))
    sys.modules["beside"].__file__ = str(tmp_path / "beside.py")
    program = shipped.collect()
    assert program is not None
    assert (program.main, source.root_of_session()) == ("", str(tmp_path))
    assert {Path(path).name for path in program.files} == {"beside.py", "__init__.py", "part.py"}


def test_an_interrupt_at_a_prompt_ends_the_calls_and_keeps_the_pool(fleet: dict[str, str], tmp_path: Path) -> None:
    typed = textwrap.dedent("""
        import lab, os, signal, threading, time
        ctx = lab.get_context("cluster")
        pool = ctx.Pool(2)
        begun = ctx.Event()
        def slow(x):
            return time.sleep(60)

        def begin(event):
            event.set(); time.sleep(60)

        other = ctx.Process(target=begin, args=(begun,), daemon=True)
        other.start()
        waiting = pool.map_async(slow, range(50))
        interrupt = threading.Thread(target=lambda: (begun.wait(30), os.kill(os.getpid(), signal.SIGINT)))
        interrupt.start(); pool.map(slow, range(50))
        print("asked again", pool.map(abs, [-1, -2]))
        print("waited", type(waiting._value).__name__, waiting.ready())
        other.join(10); print("other", other.exitcode)
    """)
    env = {**fleet, "PYTHONPATH": str(ROOT)}
    done = python("-q", "-i", cwd=tmp_path, env=env, input=typed)
    assert done.stdout.splitlines()[-3:] == ["asked again [1, 2]", "waited CallEnded True", "other 1"], done.stderr
    assert "KeyboardInterrupt" in done.stderr
