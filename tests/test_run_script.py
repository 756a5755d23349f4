"""``producer run``: a script is run in each place as ``python`` runs it, and says the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from lab import PLACES
from lab.cluster.embedded import EmbeddedFleet
from lab.settings import Settings
from tests import variables

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROGRAMS = [ROOT / "tests" / "programs" / f"{name}.py"
            for name in ("pools", "tasks", "shared", "synchronized", "evolution", "sampler")]  # fmt: skip
TIMEOUT = 100


@pytest.fixture
def fleet(cluster: Any) -> dict[str, str]:
    """The environment that points at the session's fleet."""
    cluster.connect()
    return variables.leading_to(cluster.settings)


def python(*command: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
    )


def run(script: str | Path, place: str, *args: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return python("-m", "producer", "run", script, "--on", place, "--", *args, cwd=cwd, **options)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# --- the same output in every place ---------------------------------------------------------------------------------


@lru_cache
def under_python(path: Path) -> subprocess.CompletedProcess[str]:
    return python(path, cwd=path.parent)


def told(output: str) -> str:
    """What a program printed, but for the ids of processes and threads."""
    return re.sub(r"(process|thread): \d+", r"\1: ID", output)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "counter"], ids=lambda path: path.stem)
def test_an_example_says_in_each_place_what_it_says_under_python(
    path: Path, place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    expected, done = under_python(path), run(path, place, cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stderr) == (0, "")
    # three processes of the pool print into one line, each when it ends
    words = (sorted if path.stem == "pool_of_three" else list)(told(done.stdout).split())
    assert words == (sorted if path.stem == "pool_of_three" else list)(told(expected.stdout).split())
    assert expected.stdout


@pytest.mark.parametrize("place", PLACES)
def test_the_counter_without_a_lock_never_says_more_than_500(place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    done = run(ROOT / "examples" / "counter.py", place, cwd=tmp_path, env=fleet)
    assert done.stderr == ""
    assert 50 <= int(done.stdout) <= 500


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_that_knows_nothing_of_places_says_the_same_in_each(
    path: Path, place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    expected, done = under_python(path), run(path, place, cwd=tmp_path, env=fleet)
    assert (expected.returncode, expected.stderr) == (0, "")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected.stdout
    assert "False" not in done.stdout


def test_without_a_place_the_processes_run_on_hosts(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "who.py", """
        import os
        from multiprocessing import Pool
        def host(_): return os.environ["CROSSHOST_HOST"]
        if __name__ == "__main__":
            with Pool(2) as pool: print(*pool.map(host, range(4), 1))
    """)  # fmt: skip
    done = python("-m", "producer", "run", "who.py", cwd=tmp_path, env=fleet)
    assert set(done.stdout.split()) <= {"host-1", "host-2", "host-3"}, done.stderr
    assert done.stdout


# --- as under python ------------------------------------------------------------------------------------------------

AS_UNDER_PYTHON = {
    "arguments": "import sys; print(sys.argv, __name__, __file__, sys.path[0], __spec__, __package__, __doc__)",
    "input": "print(input())",
    "exit with a number": "import sys; sys.exit(4)",
    "exit with words": "import sys; sys.exit('that was it')",
    "exit at once": "import os; os._exit(9)",
    "an exception": "import multiprocessing\ndef f():\n    return 1 / 0\n\nprint('before')\nf()\n",
    "an exception with a cause": "try:\n    {}['x']\nexcept KeyError as e:\n    raise ValueError('no x') from e\n",
    "an exception in a neighbour": "import neighbour\nneighbour.fail()\n",
    "a missing module": "import no_such_module\n",
    "a syntax error": "import multiprocessing\nprint('not printed')\nx = = 1\n",
    "a syntax error found late": "import multiprocessing\ndef f():\n    pass\nreturn 1\n",
    "a syntax error in a neighbour": "import broken\n",
    "the main module": "import sys; print(sys.modules['__main__'].__dict__ is globals(), [n for n in dir() if n != 'sys'])",
    "what is loaded": "import sys; print([n for n in ('producer', 'producer.cli', 'rich') if n in sys.modules])",
    "signals": "import signal; print([signal.getsignal(s) for s in (2, 15, 14)], signal.set_wakeup_fd(-1))",
    "names of the producer's packages": "import producer, worker; print(producer.mine, worker.mine)",
}


EVERYWHERE = ("arguments", "exit with words", "an exception", "a syntax error in a neighbour", "signals")
MEETS = [(what, place) for what in AS_UNDER_PYTHON for place in (PLACES if what in EVERYWHERE else ["threads"])]


@pytest.mark.parametrize(("what", "place"), MEETS)
def test_a_script_meets_what_it_meets_under_python(
    what: str, place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "neighbour.py", "def fail():\n    raise LookupError('in the neighbour')\n")
    write(tmp_path, "broken.py", "import multiprocessing\n(\n")
    write(tmp_path, "producer.py", "mine = 'mine'\n")
    write(tmp_path, "worker.py", "mine = 'mine too'\n")
    write(tmp_path, "script.py", AS_UNDER_PYTHON[what])
    expected = python("script.py", "-x", "y z", cwd=tmp_path, env=fleet, input="said\n")
    # as an installed command: ``python -m producer`` would take the producer.py that lies here
    command = [str(Path(sys.executable).parent / "producer"), "run", "script.py", "--on", place, "--", "-x", "y z"]
    done = subprocess.run(
        command, cwd=tmp_path, env=fleet, input="said\n", capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (expected.stdout, expected.stderr, expected.returncode)


def test_a_file_that_is_no_text_is_named(fleet: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "image.py").write_bytes(b"\x89PNG\r\n\0\0")
    done = run("image.py", "threads", cwd=tmp_path, env=fleet)
    assert done.returncode == 1
    assert re.fullmatch(r"\w+Error: .*image\.py.*\n", done.stderr)


WAITS = """
import multiprocessing, sys, time
def wait(event): event.wait(60)
if __name__ == "__main__":
    event = multiprocessing.Event()
    process = multiprocessing.Process(target=wait, args=(event,))
    process.start()
    try:
        print("waiting", flush=True)
        while process.is_alive():
            process.join(0.2)  # for a wait without end may begin just after the signal has come, unheard
    except KeyboardInterrupt:
        event.set()
        process.join()
        {then}
"""


def interrupted(tmp_path: Path, place: str, then: str, env: dict[str, str]) -> tuple[int, str, str]:
    write(tmp_path, "waits.py", WAITS.format(then=then))
    command = [sys.executable, "-m", "producer", "run", "waits.py", "--on", place]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("place", PLACES)
def test_a_script_may_answer_ctrl_c(place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    then = "time.sleep(4); print('tidied up'); sys.exit(5)"  # longer than the producer's own patience
    assert interrupted(tmp_path, place, then, fleet) == (5, "tidied up\n", "")


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_a_script_as_under_python(place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    code, _, err = interrupted(tmp_path, place, "raise", fleet)
    assert code == -signal.SIGINT
    assert err.startswith('Traceback (most recent call last):\n  File "')
    assert "waits.py" in err.splitlines()[1]
    assert err.endswith("KeyboardInterrupt\n")


# --- whose imports are answered -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["threads", "cluster"])
def test_every_form_of_import_by_the_script_and_its_neighbours_means_the_place(
    place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "neighbour.py", "import multiprocessing\nfrom package import part\n")
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/part.py", "def late():\n    import multiprocessing.pool\n    return multiprocessing\n")
    write(tmp_path, "script.py", """
        import multiprocessing, json, multiprocessing.pool, multiprocessing.dummy
        import multiprocessing as mp, multiprocessing.queues as queues
        from multiprocessing import Pool, connection as c, synchronize
        from multiprocessing.pool import ThreadPool
        import importlib, neighbour
        place = mp.__name__
        assert multiprocessing is mp and place.startswith("multiprocessing@"), place
        assert neighbour.multiprocessing is mp and neighbour.part.late() is mp
        assert importlib.import_module("multiprocessing") is mp
        assert importlib.import_module("multiprocessing.queues") is queues is mp.queues
        assert c.__name__ == place + ".connection"
        assert mp.pool.ThreadPool is ThreadPool and ThreadPool(2).map(abs, [-1]) == [1]
        assert mp.dummy.__name__ == "multiprocessing.dummy"
        from multiprocessing import *
        assert Queue == mp.Queue
        import concurrent.futures.process as library
        assert library.mp.__name__ == "multiprocessing", library.mp
        print(place)
    """)  # fmt: skip
    done = run("script.py", place, cwd=tmp_path, env=fleet)
    assert (done.stdout, done.stderr) == (f"multiprocessing@{place}\n", "")


def test_a_module_that_is_installed_keeps_the_standard_multiprocessing(tmp_path: Path, fleet: dict[str, str]) -> None:
    installed = tmp_path / ".venv" / "lib" / "python3" / "site-packages"
    write(installed, "installed.py", "import multiprocessing\nname = multiprocessing.__name__\n")
    write(
        tmp_path,
        "script.py",
        f"import sys\nsys.path.append({str(installed)!r})\nimport installed\nprint(installed.name)",
    )
    assert run("script.py", "cluster", cwd=tmp_path, env=fleet).stdout == "multiprocessing\n"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from multiprocessing import shared_memory", "the place 'cluster' has no multiprocessing.shared_memory"),
        ("import multiprocessing.shared_memory", "use multiprocessing.Array"),
        ("from multiprocessing import Nothing", "cannot import name 'Nothing' from 'multiprocessing@cluster'"),
        ("import multiprocessing.nothing", "No module named 'multiprocessing@cluster.nothing'"),
        ("import multiprocessing; multiprocessing.nothing", "in the place 'cluster' has no attribute 'nothing'"),
        ("import multiprocessing; multiprocessing.set_start_method('fork')", "cannot find context for 'fork'"),
        ("import multiprocessing; multiprocessing.get_context('fork')", "which has spawn, forkserver"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused_by_name(
    statement: str, said: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", statement)
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[1].startswith(f'  File "{tmp_path}/script.py"')


# --- hosts get the source -------------------------------------------------------------------------------------------

VANISHING = """
import os, shutil
from multiprocessing import Pool, Process
import neighbour

def work(n):
    from package.part import two
    return neighbour.one + two + n, __name__

if __name__ == "__main__":
    first = Process(target=neighbour.nothing)
    first.start()
    first.join()
    shutil.rmtree(os.path.dirname(__file__))
    with Pool(2) as pool:
        print(pool.map(work, range(3)))
"""


def vanishing(folder: Path) -> Path:
    write(folder, "neighbour.py", "one = 1\ndef nothing(): pass\n")
    write(folder, "package/__init__.py", "")
    write(folder, "package/part.py", "from .deeper import two\n")
    write(folder, "package/deeper.py", "two = 2\n")
    return write(folder, "script.py", VANISHING)


def test_a_host_needs_no_file_of_a_script(fleet: dict[str, str], tmp_path: Path) -> None:
    done = run(vanishing(tmp_path / "gone"), "cluster", cwd=tmp_path, env=fleet)
    assert done.stdout == "[(3, '__mp_main__'), (4, '__mp_main__'), (5, '__mp_main__')]\n", done.stderr
    assert not (tmp_path / "gone").exists()


def test_a_host_needs_no_file_of_a_program_that_asks_for_the_cluster(fleet: dict[str, str], tmp_path: Path) -> None:
    script = vanishing(tmp_path / "gone")
    text = script.read_text().replace("from multiprocessing import Pool, Process", "import lab")
    ctx = 'if __name__ == "__main__":\n    ctx = lab.get_context("cluster"); Pool, Process = ctx.Pool, ctx.Process'
    script.write_text(text.replace('if __name__ == "__main__":', ctx))
    done = python(script, cwd=tmp_path, env=fleet)
    assert done.stdout == "[(3, '__mp_main__'), (4, '__mp_main__'), (5, '__mp_main__')]\n", done.stderr


def test_a_host_needs_no_file_of_a_package_that_is_run_by_its_name(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "gone/pack/__init__.py", "")
    write(tmp_path, "gone/pack/part.py", "two = 2\n")
    write(tmp_path, "gone/pack/prog.py", """
        import shutil, lab
        from . import part
        def work(n): return n + part.two, __name__
        if __name__ == "__main__":
            ctx = lab.get_context("cluster")
            first = ctx.Process(target=work, args=(1,)); first.start(); first.join()
            shutil.rmtree("pack")
            with ctx.Pool(2) as pool: print(pool.map(work, range(2)))
    """)  # fmt: skip
    done = python("-m", "pack.prog", cwd=tmp_path / "gone", env=fleet)
    assert done.stdout == "[(2, '__mp_main__'), (3, '__mp_main__')]\n", done.stderr


def test_a_process_of_a_host_hands_the_source_on(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "script.py", """
        from multiprocessing import Process, SimpleQueue
        def inner(queue): queue.put("from the grandchild")
        def outer(queue):
            child = Process(target=inner, args=(queue,)); child.start(); child.join()
        if __name__ == "__main__":
            queue = SimpleQueue()
            child = Process(target=outer, args=(queue,)); child.start(); print(queue.get()); child.join()
            print(child.exitcode)
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.stdout == "from the grandchild\n0\n", done.stderr


def test_a_remote_traceback_shows_the_lines_of_a_script(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "gone/script.py", """
        import os
        from multiprocessing import Process
        def fail(): raise LookupError("on a host")  # this very line
        if __name__ == "__main__":
            for _ in range(2):
                child = Process(target=fail); child.start(); child.join()
                if os.path.exists(__file__): os.remove(__file__)
    """)  # fmt: skip
    done = run("gone/script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.stderr.count('raise LookupError("on a host")  # this very line') == 2, done.stderr


def test_a_neighbour_may_have_the_name_of_the_workers_package(fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "worker.py", "def work(n): return n + 1\n")
    write(tmp_path, "script.py", """
        from multiprocessing import Pool
        import worker
        if __name__ == "__main__":
            with Pool(2) as pool: print(pool.map(worker.work, [1, 2]))
    """)  # fmt: skip
    done = python("-P", "-m", "producer", "run", "script.py", cwd=tmp_path, env=fleet)
    assert done.stdout == "[2, 3]\n", done.stderr


def test_an_embedded_fleet_starts_beside_a_neighbour_named_worker(tmp_path: Path) -> None:
    write(tmp_path, "worker.py", "def work(n): return n + 1\n")
    write(tmp_path, "script.py", "import worker\nprint(worker.work(1))\n")
    env = {**variables.unset(), "CROSSHOST_HOSTS": "1"}
    done = python("-P", "-m", "producer", "run", "script.py", cwd=tmp_path, env=env)
    assert done.stdout == "2\n", done.stderr


LACKING = """
import sys, types
from multiprocessing import Pool, Process
if __name__ == "__main__":
    sys.modules["only_here"] = types.ModuleType("only_here")
import only_here
def f(n): return n
if __name__ == "__main__":
    {use}
"""


def test_a_module_that_a_host_lacks_is_named_with_the_host(fleet: dict[str, str], tmp_path: Path) -> None:
    write(
        tmp_path,
        "script.py",
        LACKING.format(use="p = Process(target=f, args=(1,)); p.start(); p.join(); sys.exit(p.exitcode)"),
    )
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.returncode == 1
    assert re.search(
        r"Host host-\d could not load the program: .*'only_here'\nInstall only_here on every host", done.stderr
    )


def test_a_pool_whose_hosts_lack_a_module_fails_instead_of_trying_for_ever(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", LACKING.format(use="Pool(2).map(f, range(9))"))
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.returncode == 111
    assert re.search(r"error: Host host-\d could not load the program: .*'only_here'\nInstall only_here", done.stderr)
    assert "line 9: Pool(2).map(f, range(9))" in done.stderr


def test_a_pool_that_has_failed_can_be_closed(fleet: dict[str, str], tmp_path: Path) -> None:
    use = """pool = Pool(2)
    for _ in range(2):
        try: pool.map(f, range(9))
        except RuntimeError as error: print(error.message)
    pool.close(); pool.join(); print("joined")"""
    write(tmp_path, "script.py", LACKING.format(use=use))
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(Host host-\d could not load the program: .*\n){2}joined\n", done.stdout)


@pytest.mark.parametrize("call", ["Pool(2).map(abs, [1, 2])", "p = Process(target=print); p.start(); p.join()"])
def test_a_script_without_a_guard_gets_the_error_of_spawn_and_ends(
    call: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", f"from multiprocessing import Pool, Process\n{call}\n")
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert "An attempt has been made to start a new process before the" in done.stderr
    assert done.stderr.count("bootstrapping phase") <= 5
    assert done.returncode == (111 if "Pool" in call else 0)


# --- how it ends when it is the producer that fails -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.py"], "Cannot read 'nowhere.py': No such file or directory."),
        (["."], "'.' is a directory."),
        (["script.py", "--on", "clouds"], "There is no place 'clouds'."),
        (["script.py", "--frob"], "No such option '--frob'"),
        ([], "Missing argument 'SCRIPT.py'"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own(args: list[str], said: str, tmp_path: Path) -> None:
    write(tmp_path, "script.py", "")
    done = python("-m", "producer", "run", *args, cwd=tmp_path)
    assert done.returncode == 102
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fleet_that_is_not_there_is_told_before_the_script_begins(tmp_path: Path) -> None:
    write(tmp_path, "script.py", "print('begun')")
    done = run("script.py", "cluster", cwd=tmp_path, env=variables.leading_to(
        Settings(broker_url="unix:///nowhere/valkey.sock", authkey=b"k" * 32)))  # fmt: skip
    assert (done.returncode, done.stdout) == (104, "")
    assert "(exit code 104: broker unreachable)" in done.stderr


@pytest.fixture
def own_fleet() -> Iterator[EmbeddedFleet]:
    with EmbeddedFleet(replace(Settings(), hosts=1, lease=1.0)) as one:
        yield one


def test_a_broker_that_is_lost_ends_the_script_with_its_code(own_fleet: EmbeddedFleet, tmp_path: Path) -> None:
    settings = own_fleet.start()
    write(tmp_path, "script.py", """
        import time
        from multiprocessing import Pool
        if __name__ == "__main__":
            pool = Pool(2)
            print(pool.map(abs, [-1]), flush=True)
            pool.map(time.sleep, [60, 60])
    """)  # fmt: skip
    command = [sys.executable, "-m", "producer", "run", "script.py"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=variables.leading_to(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "[1]\n"
        own_fleet.stop()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 104, err
    assert "line 7: pool.map(time.sleep, [60, 60])" in err
    assert "Traceback" not in err


def test_a_script_that_is_killed_leaves_nothing_in_redis(cluster: Any, fleet: dict[str, str], tmp_path: Path) -> None:
    store = cluster.connect().store
    write(tmp_path, "waits.py", WAITS.format(then="raise"))
    before = set(store.call("KEYS", "crosshost:{*"))
    with subprocess.Popen(
        [sys.executable, "-m", "producer", "run", "waits.py"],
        cwd=tmp_path,
        env=fleet,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        made = set(store.call("KEYS", "crosshost:{*")) - before
        process.kill()
    (program,) = [key for key in made if b":program:" in key]
    assert 0 < store.call("PTTL", program) <= cluster.settings.lease * 10_000
    assert all(store.call("PTTL", key) != -1 for key in made)


def test_two_scripts_at_once_do_not_meet(fleet: dict[str, str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, "neighbour.py", f"name = {name!r}\n")
        write(tmp_path / name, "script.py", """
            from multiprocessing import Pool
            import neighbour
            def tell(n): return neighbour.name
            if __name__ == "__main__":
                with Pool(2) as pool: print(*pool.map(tell, range(20), 1))
        """)  # fmt: skip
    command = [sys.executable, "-m", "producer", "run", "script.py"]
    both = [
        subprocess.Popen(command, cwd=tmp_path / name, env=fleet, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    said = [set(process.communicate(timeout=TIMEOUT)[0].split()) for process in both]
    assert said == [{"a"}, {"b"}]
