"""Programs that do what few do, and that do it on hosts as under ``python``."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.kit import variables
from tests.program.test_run_script import TIMEOUT, run, write

PROGRAMS = {
    "a child that begins with the environment as its parent has changed it": """
        import multiprocessing as mp, os
        def seen(): return os.environ.get("MODEL"), os.environ.get("HOME"), "CROSSHOST_HOST" in os.environ
        def begin(queue):
            os.environ["MODEL"] = os.environ["MODEL"] + "ger"
            process = mp.Process(target=tell, args=(queue,))
            process.start()
            process.join()
        def tell(queue): queue.put(seen()[:2])
        if __name__ == "__main__":
            os.environ["MODEL"] = "big"
            del os.environ["HOME"]
            queue = mp.Queue()
            for target in (tell, begin):
                process = mp.Process(target=target, args=(queue,))
                process.start()
                print(queue.get())
                process.join()
    """,
    "bytes that are no text": """
        import multiprocessing as mp, sys
        def write():
            sys.stdout.buffer.write(bytes(range(256)) + "ä€".encode())
            sys.stdout.buffer.flush()
        if __name__ == "__main__":
            process = mp.Process(target=write)
            process.start()
            process.join()
    """,
    "workers of an executor that have children": """
        from concurrent.futures import ProcessPoolExecutor
        def leaf(n): return n
        def branch(n):
            with ProcessPoolExecutor(2) as executor: return sum(executor.map(leaf, range(n)))
        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as executor: print(list(executor.map(branch, [2, 3])))
    """,
    "numbers of numpy where others are usual": """
        import multiprocessing as mp
        import numpy as np
        if __name__ == "__main__":
            two, moment = np.int64(2), np.float32(0.01)
            with mp.Pool(two) as pool:
                print(pool.map(abs, [-1, -2, -3], two), pool.map_async(abs, [-1]).get(np.float64(60)))
            queue, lock, barrier = mp.Queue(two), mp.Lock(), mp.Barrier(np.int32(1))
            queue.put(1, timeout=moment)
            print(queue.get(timeout=np.float64(60)), mp.Semaphore(two).acquire(True, moment), lock.acquire(timeout=moment))
            print(lock.acquire(True, moment), barrier.wait(np.float32(60)), mp.Event().wait(moment))
    """,
    "pools whose workers say that they are no daemons": """
        import multiprocessing as mp, multiprocessing.pool
        class NoDaemon(mp.Process):
            daemon = property(lambda self: False, lambda self, value: None)
        class Context(type(mp.get_context())):
            Process = NoDaemon
        class ByContext(multiprocessing.pool.Pool):
            def __init__(self, *args, **kwds): super().__init__(*args, context=Context(), **kwds)
        class ByProcess(multiprocessing.pool.Pool):
            def Process(self, *args, **kwds):
                process = super().Process(*args, **kwds)
                process.__class__ = type("Mine", (type(process),), {"daemon": NoDaemon.daemon})
                return process
        def leaf(n): return n
        def work(n):
            with mp.Pool(2) as pool: return pool.map(leaf, range(n))
        if __name__ == "__main__":
            for kind in (ByContext, ByProcess):
                with kind(2) as pool: print(pool.map(work, [1, 2]))
    """,
    "pools that nobody closes": """
        import multiprocessing as mp, time, warnings
        def same(n): return n
        def forget(): return mp.Pool(2).map(same, [1, 2])
        if __name__ == "__main__":
            warnings.simplefilter("ignore", ResourceWarning)
            print([forget() for _ in range(3)])
            deadline = time.monotonic() + 30
            while mp.active_children() and time.monotonic() < deadline: time.sleep(0.05)
            print(len(mp.active_children()))
    """,
    "signals that a child sends itself": """
        import multiprocessing as mp, signal
        def heed(queue):
            for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGHUP", "SIGTSTP"):
                signal.signal(getattr(signal, name), lambda signum, _: queue.put(signal.Signals(signum).name))
                signal.raise_signal(getattr(signal, name))
        def die(signum): signal.raise_signal(signum)
        if __name__ == "__main__":
            queue = mp.Queue()
            process = mp.Process(target=heed, args=(queue,))
            process.start()
            print([queue.get() for _ in range(5)])
            process.join()
            for signum in (signal.SIGUSR1, signal.SIGVTALRM, signal.SIGTERM, signal.SIGPIPE):
                process = mp.Process(target=die, args=(signum,))
                process.start()
                process.join()
                print(process.exitcode)
    """,
}


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_a_host_runs_it_as_python_does(text: str, fleet: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, "program.py", text)
    plain = subprocess.run([sys.executable, path], capture_output=True, timeout=TIMEOUT, check=False)
    command = [sys.executable, "-m", "producer", "run", str(path)]
    hosts = subprocess.run(command, capture_output=True, timeout=TIMEOUT, env=fleet, check=False)
    assert (hosts.returncode, hosts.stderr.decode()) == (plain.returncode, "")
    assert hosts.stdout == plain.stdout
    assert plain.stdout


def test_who_signals_its_parent_or_its_group_does_not_hit_other_programs(fleet: dict[str, str], tmp_path: Path) -> None:
    text = """
        import multiprocessing as mp, os, signal
        def signal_all(n):
            for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGINT", "SIGHUP", "SIGVTALRM", "SIGPROF", "SIGIO"):
                os.kill(os.getppid(), getattr(signal, name))
            os.killpg(0, signal.SIGKILL)
        def wait(event): event.wait()
        if __name__ == "__main__":
            event = mp.Event()
            others = [mp.Process(target=wait, args=(event,)) for _ in range(8)]
            for other in others: other.start()
            guilty = [mp.Process(target=signal_all, args=(n,)) for n in range(8)]
            for process in guilty: process.start()
            for process in guilty: process.join()
            event.set()
            for other in others: other.join()
            print(*[process.exitcode for process in guilty + others])
    """
    done = run(write(tmp_path, "program.py", text), "cluster", cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", " ".join(["-9"] * 8 + ["0"] * 8) + "\n")


def test_an_array_is_for_numpy_what_it_holds_and_a_write_that_would_be_lost_is_refused(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    text = """
        import multiprocessing as mp
        import numpy as np
        def use(shared, queue):
            copy = np.array(shared)
            copy[0] = 9
            queue.put((float(np.asarray(shared).sum()), copy.tolist(), float(np.mean(shared))))
            try:
                np.asarray(shared)[:] = 7
            except ValueError as exc:
                queue.put(str(exc))
        if __name__ == "__main__":
            queue, shared = mp.Queue(), mp.RawArray("d", [1, 2, 3])
            process = mp.Process(target=use, args=(shared, queue))
            process.start()
            print(queue.get(), queue.get())
            process.join()
            print(list(shared))
    """
    done = run(write(tmp_path, "program.py", text), "cluster", cwd=tmp_path, env=fleet)
    expected = "(6.0, [9.0, 2.0, 3.0], 2.0) assignment destination is read-only\n[1.0, 2.0, 3.0]\n"
    assert (done.stderr, done.stdout) == ("", expected)


def test_what_a_stream_of_the_programs_own_raises_does_not_keep_it_from_hearing_how_its_processes_end(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    text = """
        import multiprocessing as mp, sys
        class Tee:
            def write(self, text): self.text = text
        class Broken:
            def write(self, text): raise RuntimeError("no paper")
        if __name__ == "__main__":
            own, said = sys.stdout, []
            for sys.stdout in (Broken(), tee := Tee()):
                process = mp.Process(target=print, args=("child",))
                process.start()
                process.join(30)
                said.append(process.exitcode)
            sys.stdout = own
            print(said, repr(tee.text))
    """
    done = run(write(tmp_path, "program.py", text), "cluster", cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout) == (0, "[0, 0] 'child\\n'\n")
    assert done.stderr.count("Exception in thread") == done.stderr.count("RuntimeError: no paper") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_standard_stream_may_be_closed(closed: str, fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "program.py", textwrap.dedent("""
        import multiprocessing as mp, pathlib
        def square(n): return n * n
        if __name__ == "__main__":
            with mp.Pool(2) as pool: pathlib.Path("squares").write_text(str(pool.map(square, [1, 2])))
    """))  # fmt: skip
    command = f"exec {sys.executable} -m producer run program.py {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=fleet, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "squares").read_text() == "[1, 4]"


@pytest.mark.parametrize("own_fleet", [True, False])
@pytest.mark.parametrize("name", ["redis.py", "celery.py", "cryptography.py"])
def test_a_script_may_have_the_name_of_a_library_that_the_fleet_needs(
    name: str, own_fleet: bool, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, name, """
        from concurrent.futures import ProcessPoolExecutor
        def square(n): return n * n
        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as executor: print(list(executor.map(square, [1, 2])))
    """)  # fmt: skip
    env = {**variables.unset(), "CROSSHOST_HOSTS": "1"} if own_fleet else fleet
    done = run(name, "cluster", cwd=tmp_path, env=env)
    assert (done.stderr, done.stdout) == ("", "[1, 4]\n")


def test_a_program_may_have_modules_by_the_names_of_libraries_that_the_fleet_needs(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    for name in ("cryptography", "packaging", "statistics"):
        write(tmp_path, f"{name}.py", f"def shift(text): return {name[0]!r} + text\n")
    write(tmp_path, "script.py", """
        import multiprocessing as mp
        import cryptography, packaging, statistics
        def shift(text): return packaging.shift(cryptography.shift(statistics.shift(text)))
        if __name__ == "__main__":
            with mp.Pool(2) as pool: print(pool.map(shift, "ab"), shift("c"))
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert (done.stderr, done.stdout) == ("", "['pcsa', 'pcsb'] pcsc\n")


AT_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"


@pytest.mark.parametrize("kind", ["a process that tidies up", "a process that does not", "an executor"])
def test_ctrl_c_at_a_terminal_reaches_processes_on_hosts(kind: str, fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "program.py", """
        import multiprocessing as mp, sys, time
        from concurrent.futures import ProcessPoolExecutor
        def sleep(started, seconds=100):
            started.set()
            time.sleep(seconds)
        def tidy(started):
            try:
                sleep(started)
            except KeyboardInterrupt:
                print("tidied up", flush=True)
        def wait(target):
            started = mp.Event()
            process = mp.Process(target=target, args=(started,))
            process.start()
            started.wait()
            print("ready", flush=True)
            while process.is_alive(): process.join(0.2)
        if __name__ == "__main__":
            if "executor" in sys.argv[1]:
                with ProcessPoolExecutor(1) as executor, mp.Manager() as manager:
                    started = manager.Event()
                    future = executor.submit(sleep, started)
                    started.wait()
                    print("ready", flush=True)
                    while not future.done(): time.sleep(0.1)
            wait(sleep if "not" in sys.argv[1] else tidy)
    """)  # fmt: skip
    command = [sys.executable, "-c", AT_A_TERMINAL, sys.executable, "-m", "producer", "run", "program.py", "--", kind]
    with subprocess.Popen(command, cwd=tmp_path, env=fleet, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = b""
        while b"ready" not in said:
            said += process.stdout.read1()  # type: ignore[attr-defined]
        process.stdin.write(b"\x03")
        process.stdin.flush()
        said += process.stdout.read()
        process.wait(30)
    assert (b"tidied up" in said) is ("tidies" in kind)
    assert b"KeyboardInterrupt" in said
