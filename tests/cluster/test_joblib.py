"""joblib and scikit-learn on a fleet: what they give is what they give in this process, and what is lost on the way."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, effective_n_jobs, parallel_config

import lab
from lab.errors import CallOverdue, WorkerLost
from tests import ROOT
from tests.cluster import joblib_targets as targets
from tests.cluster import limit_targets
from tests.kit import variables
from tests.kit.server import Server
from tests.kit.wait import until

TIMEOUT = 60.0


@pytest.fixture(autouse=True, scope="module")
def fleet(cluster: Any) -> Iterator[Any]:
    """The tests' fleet as joblib's backend: two calls at once, and so the same two processes for all of them."""
    cluster.connect()
    lab.joblib.register()
    yield cluster
    lab.joblib.shut_down()


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The configuration that a program makes once."""
    # Pytest gives the stdlib's logger a handler once another test has made it, and then loky's processes end at once.
    monkeypatch.setattr(util, "_logger", None)
    with parallel_config(backend="crosshost", n_jobs=2) as config:
        yield config


# What every backend does


def test_results_come_in_order_by_value_and_in_batches() -> None:
    offset = 3
    assert Parallel()(delayed(targets.square)(n) for n in range(1000)) == [n * n for n in range(1000)]
    assert Parallel(batch_size=7)(delayed(targets.square)(n) for n in range(50)) == [n * n for n in range(50)]
    assert Parallel()(delayed(lambda n: n + offset)(n) for n in range(20)) == list(range(3, 23))
    assert [made() for made in Parallel()(delayed(lambda n: lambda: n)(n) for n in range(4))] == [0, 1, 2, 3]
    assert Parallel()([]) == []


def test_calls_run_on_hosts_and_not_here() -> None:
    pids = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_results_may_be_taken_as_they_come() -> None:
    expected = [n * n for n in range(30)]
    assert list(Parallel(return_as="generator")(delayed(targets.square)(n) for n in range(30))) == expected
    assert sorted(Parallel(return_as="generator_unordered")(delayed(targets.square)(n) for n in range(30))) == expected


def test_an_error_is_the_calls_with_its_traceback_and_the_workers_stay() -> None:
    before = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
    with pytest.raises(LookupError, match="seven is refused") as error:
        Parallel()(delayed(targets.refuse_seven)(n) for n in range(8))
    assert "# this comment is in the traceback" in str(error.value.__cause__)
    after = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
    assert before & after


@pytest.mark.parametrize("n", [0, 3])
def test_a_parallel_in_a_call_runs_in_threads(n: int) -> None:
    assert Parallel()(delayed(targets.inner)(n) for _ in range(3)) == [
        ([i * i for i in range(n)], "ThreadingBackend")
    ] * 3  # fmt: skip


def test_one_pool_of_workers_serves_one_parallel_after_the_other() -> None:
    pids: set[int] = set()
    with Parallel(batch_size=1) as parallel:
        for _ in range(3):
            pids |= set(parallel(delayed(os.getpid)() for _ in range(10)))
    for _ in range(3):
        pids |= set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(10)))
    assert len(pids) <= 2


def test_minus_one_is_every_slot_of_the_fleet(cluster: Any) -> None:
    slots = cluster.cpu_count()
    assert effective_n_jobs(-1) == slots
    assert effective_n_jobs(-2) == slots - 1
    assert effective_n_jobs(slots + 5) == slots + 5
    with parallel_config(backend="crosshost", n_jobs=None):
        assert Parallel().n_jobs == -1
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(targets.square)(n) for n in range(3))


def test_from_threads_at_once(cluster: Any) -> None:
    found: dict[int, Any] = {}

    def compute(n: int) -> None:
        with parallel_config(backend="crosshost", n_jobs=2):
            found[n] = Parallel()(delayed(targets.square)(i) for i in range(n, n + 50))

    threads = [threading.Thread(target=compute, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert found == {n: [i * i for i in range(n, n + 50)] for n in range(3)}


def test_libraries_compute_in_one_thread_each_unless_they_are_told_to() -> None:
    for variable, pools in Parallel()(delayed(targets.threads_of_libraries)(n) for n in range(3)):
        assert variable == "1"
        assert set(pools) == {1}


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="has no parameter 'hosts'"), parallel_config(backend="crosshost", hosts=3):
        pass
    with pytest.raises(TypeError, match="has no parameter 'hosts'"):
        Parallel(hosts=3)(delayed(targets.square)(n) for n in range(3))


@pytest.mark.parametrize("given_to", ["the configuration", "Parallel"])
def test_an_initializer_prepares_processes_of_its_own(cluster: Any, given_to: str) -> None:
    value = cluster.Value("i", 7)

    def take(*given: Any) -> None:
        limit_targets.take(*given)

    options: dict[str, Any] = {"initializer": take, "initargs": (value,)}
    calls = [delayed(targets.given_value)() for _ in range(20)]
    if given_to == "Parallel":
        assert Parallel(**options)(calls) == [7] * 20
    else:
        with parallel_config(backend="crosshost", n_jobs=2, **options):
            assert Parallel()(calls) == [7] * 20
    assert Parallel()(delayed(targets.given_value)() for _ in range(3)) == [None] * 3


# Large arrays


def in_redis(cluster: Any) -> set[bytes]:
    """The keys of what is shared."""
    return set(cluster.connect().store.call("KEYS", "*:share:*"))


def through_redis(cluster: Any) -> tuple[int, int]:
    """Bytes that have come to Redis, and that have gone from it."""
    said = cluster.connect().store.call("INFO", "stats").decode()
    into, out = (re.search(rf"total_net_{way}_bytes:(\d+)", said) for way in ("input", "output"))
    assert into
    assert out
    return int(into[1]), int(out[1])


def test_an_array_of_many_calls_comes_to_each_host_once_and_goes_when_they_have_ended(cluster: Any) -> None:
    array, before = np.random.default_rng(0).random(500_000), in_redis(cluster)
    expected = [float(array.sum()) + n for n in range(16)]
    into, out = through_redis(cluster)
    found = Parallel(batch_size=1)(delayed(targets.total)(array, n) for n in range(16))
    into, out = (now - then for now, then in zip(through_redis(cluster), (into, out), strict=True))
    assert [value for _, value in found] == expected
    hosts = {host for host, _ in found}
    assert array.nbytes < into < 1.5 * array.nbytes
    assert array.nbytes < out < (len(hosts) + 0.5) * array.nbytes
    until(lambda: in_redis(cluster) <= before, "the array is not in Redis any more", 20)


def test_arrays_that_only_one_call_has_go_with_their_calls(cluster: Any) -> None:
    before = in_redis(cluster)
    found = Parallel(batch_size=1)(delayed(targets.total)(np.full(200_000, n), n) for n in range(20))
    assert [value for _, value in found] == [200_001 * n for n in range(20)]
    until(lambda: in_redis(cluster) <= before, "no array is in Redis any more", 20)


@pytest.mark.parametrize("name", ["loky", "crosshost"])
def test_what_a_call_writes_into_a_large_array_is_refused_or_its_own(name: str) -> None:
    array = np.zeros(200_000)
    with parallel_config(backend=name, n_jobs=2):
        with pytest.raises(ValueError, match="read-only"):
            Parallel()(delayed(targets.write)(array, n) for n in range(4))
        with pytest.raises(ValueError, match="read-only"):  # nor into one that is not in one piece
            Parallel()(delayed(targets.write)(np.zeros((1000, 400))[:, ::2], n) for n in range(4))
        assert Parallel(mmap_mode="c")(delayed(targets.write)(array, n) for n in range(4)) == [0, 1, 2, 3]
        assert Parallel(max_nbytes=None)(delayed(targets.write)(array, n) for n in range(4)) == [0, 1, 2, 3]
    assert not array.any()


def test_what_is_written_to_an_array_between_two_calls_is_in_the_second() -> None:
    array = np.zeros(200_000)
    with Parallel(batch_size=1) as parallel:
        for n in range(5):
            array[:] = n
            found = parallel(delayed(targets.total)(array, 0) for _ in range(4))
            assert [value for _, value in found] == [200_000 * n] * 4


def test_an_array_in_a_file_of_this_host_is_one_on_others(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "array", dtype=float, mode="w+", shape=(500, 500))
    array[:] = 2
    found = Parallel(batch_size=1)(delayed(targets.total)(part, 0) for part in (array, array[100:]))
    assert [value for _, value in found] == [500_000, 400_000]


def test_a_call_that_is_repeated_finds_its_array_again(tmp_path: Path) -> None:
    array = np.ones(200_000)
    call = delayed(targets.total_at_the_second_attempt)
    assert Parallel(batch_size=1)(call(array, str(tmp_path / name)) for name in "ab") == [200_000, 200_000]


def test_a_call_that_does_not_pickle_is_an_error_when_others_have_ended_too() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        Parallel(batch_size=1)(delayed(targets.square)(n if n < 15 else threading.Lock()) for n in range(20))
    assert Parallel()(delayed(targets.square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


# What ends early


def test_a_timeout_ends_what_runs_and_nothing_else(tmp_path: Path) -> None:
    pids = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20)))
    begun = time.monotonic()
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.5)(delayed(targets.mark_then_sleep)(str(tmp_path), n, 60 * n) for n in (0, 1))
    assert time.monotonic() - begun < TIMEOUT
    until(lambda: pids - set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(20))), "its process is another")
    assert not (tmp_path / "ended-1").exists()


def test_a_limited_call_is_a_batch_of_its_own() -> None:
    calls = [delayed(lab.limited(limit_targets.square, timeout=TIMEOUT))(n) for n in range(20)]
    assert Parallel()(calls) == [n * n for n in range(20)]
    with pytest.raises(CallOverdue, match=r"^sleep\(60\) was not done after 0\.3 s"):
        Parallel()(delayed(lab.limited(time.sleep, timeout=0.3))(n) for n in (0, 60))
    assert Parallel()(delayed(targets.square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_a_call_that_kills_every_process_is_lost_and_the_next_parallel_goes_on() -> None:
    with pytest.raises(WorkerLost, match="3 processes that took it died"):
        Parallel()(delayed(os._exit)(3) for _ in range(1))
    assert Parallel()(delayed(targets.square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_results_that_nobody_takes_any_more_are_not_computed(tmp_path: Path) -> None:
    results = Parallel(return_as="generator", batch_size=1)(
        delayed(targets.mark_then_sleep)(str(tmp_path), n, 60.0 if n else 0.0) for n in range(3)
    )
    assert next(results) == 0
    until(lambda: (tmp_path / "begun-1").exists(), "the second runs")
    begun = time.monotonic()
    results.close()
    assert Parallel()(delayed(targets.square)(n) for n in range(5)) == [0, 1, 4, 9, 16]
    assert time.monotonic() - begun < TIMEOUT
    assert not (tmp_path / "ended-1").exists()


def test_ctrl_c_ends_what_runs_and_the_program(cluster: Any, tmp_path: Path) -> None:
    program = f"""
import lab
from joblib import Parallel, delayed
from tests.cluster import joblib_targets as targets
lab.joblib.register()
try:
    Parallel(2, backend="crosshost")(delayed(targets.mark_then_sleep)({str(tmp_path)!r}, n, 60) for n in range(4))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(Parallel(2, backend="crosshost")(delayed(targets.square)(n) for n in range(3)))
"""
    env = variables.leading_to(cluster.settings)
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as running:
        try:
            until(lambda: (tmp_path / "begun-0").exists(), "it has begun", TIMEOUT)
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=TIMEOUT)[0] == "interrupted\n[0, 1, 4]\n"
        finally:
            running.kill()
    assert not (tmp_path / "ended-0").exists()


def test_registering_starts_nothing() -> None:
    program = "import lab; lab.joblib.register(); print(lab.get_context('cluster')._fleet, lab.store.run.current())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables.unset(), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.stdout, done.stderr) == ("None None\n", "")


def test_a_program_without_a_main_guard_has_its_functions_classes_and_errors_by_value(
    cluster: Any, tmp_path: Path
) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text("""
import lab
from beside import double
from joblib import Parallel, delayed, parallel_config

class Point:
    def __init__(self, x): self.x = x
class Refused(Exception):
    def __init__(self, one, two): super().__init__(one, two)
    def __reduce__(self): return Refused, self.args
def shifted(point):
    if point.x == 3: raise Refused(point.x, "two")
    return Point(double(point.x))

lab.joblib.register()
print("once")
with parallel_config(backend="crosshost", n_jobs=2):
    found = Parallel()(delayed(shifted)(Point(n)) for n in range(3))
    print([type(point) is Point and point.x for point in found])
    try:
        Parallel()(delayed(shifted)(Point(n)) for n in range(4))
    except Refused as exc:
        print(exc.args, "in shifted" in str(exc.__cause__))
""")
    (tmp_path / "beside.py").write_text("def double(n): return 2 * n")
    env = {**variables.leading_to(cluster.settings), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=TIMEOUT)
    assert (done.stdout, done.stderr) == ("once\n[0, 2, 4]\n(3, 'two') True\n", "")


def test_without_joblib_what_lacks_is_said() -> None:
    program = (
        "import sys; sys.modules['joblib'] = None\nimport lab\ntry: lab.joblib\nexcept ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT)
    assert "joblib is not installed here" in done.stdout
    assert "pip install joblib" in done.stdout


# scikit-learn


@pytest.mark.timeout(300)  # six processes import it, which takes each some seconds of a core
def test_scikit_learn_gives_what_it_gives_here() -> None:
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.svm import SVC

    features, labels = make_classification(150, 8, random_state=0)
    grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.1, 0.01]}

    def compute() -> tuple[Any, ...]:
        search = GridSearchCV(SVC(), grid, cv=3).fit(features, labels)
        forest = RandomForestClassifier(20, random_state=0).fit(features, labels)
        return (
            search.cv_results_["mean_test_score"],
            search.cv_results_["rank_test_score"],
            search.predict(features),
            cross_val_score(SVC(), features, labels, cv=4),
            forest.feature_importances_,
            [tree.tree_.threshold for tree in forest],
        )

    with parallel_config(backend="crosshost", n_jobs=2, max_nbytes=1000):  # so that both arrays are shared
        fleet = compute()
    for other in ("sequential", "loky"):
        with parallel_config(backend=other, n_jobs=2):
            for mine, theirs in zip(fleet, compute(), strict=True):
                if isinstance(mine, list):
                    assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)), other
                else:
                    assert np.array_equal(mine, theirs), other


SEARCH = """
import sys
import numpy as np
from joblib import parallel_config
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
import lab
from tests.cluster.sklearn_targets import Slow

directory = sys.argv[1]
features, labels = make_classification(120, 8, random_state=0)
grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.1, 0.01]}
lab.joblib.register()
with parallel_config(backend="crosshost", n_jobs=2):
    search = GridSearchCV(Slow(directory), grid, cv=3).fit(features, labels)
    scores = cross_val_score(Slow(directory), features, labels, cv=4)
serial = GridSearchCV(Slow(), grid, cv=3).fit(features, labels)
for name in ("mean_test_score", "std_test_score", "rank_test_score"):
    assert np.array_equal(search.cv_results_[name], serial.cv_results_[name]), name
assert np.array_equal(search.predict(features), serial.predict(features))
assert np.array_equal(scores, cross_val_score(Slow(), features, labels, cv=4))
print("equal")
"""


@pytest.mark.timeout(300)
def test_a_search_goes_on_while_a_host_is_killed(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with Server(tmp_path, hosts=2, slots=1, lease=3.0) as server:
        program = [sys.executable, "-c", SEARCH, str(marks)]
        with subprocess.Popen(
            program, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as search:
            try:
                begun = until_begun(marks)
                server.workers[int(begun.removeprefix("host-")) - 1].kill()
                out, err = search.communicate(timeout=150)
            finally:
                search.kill()
        assert out == "equal\n", err
    assert len({mark.name.partition("@")[0] for mark in marks.iterdir()}) == 2
    assert len(list(marks.iterdir())) > 6 * 3 + 4  # every fit, and again what had begun on the host that was killed


def until_begun(marks: Path) -> str:
    """The host on which the first fit has begun."""
    until(lambda: any(marks.iterdir()), "a fit has begun", 120)
    return min(marks.iterdir(), key=lambda mark: mark.name.partition("@")[2]).name.partition("@")[0]


# joblib's own tests


@pytest.mark.timeout(300)
def test_joblibs_own_tests_of_backends_pass(tmp_path: Path) -> None:
    # not those in which a backend of joblib's nests this one: it is not registered in that one's processes
    chosen = ["--pyargs", "joblib.test.test_parallel", "-k", "crosshost and not nested_loop"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.kit.joblib_backend",
        "-p",
        "no:cacheprovider",
        *chosen,
    ]
    env = {
        **variables.unset(),
        "CROSSHOST_HOSTS": "1",
        "CROSSHOST_SLOTS": "2",
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    passed = re.search(r"^(\d+) passed, \d+ deselected", done.stdout, re.MULTILINE)
    assert passed, done.stdout[-5000:] + done.stderr
    assert int(passed[1]) >= 60
