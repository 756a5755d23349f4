"""CPython's executor tests as judge of ``ClusterExecutor``: ``python -m conformance.futures --on cluster``.

The installed interpreter's ``test.test_concurrent_futures`` holds its tests in mixins that are told which executor to make;
here they are told ours. No test is copied or changed. What is left out, and why, is in ``EXCLUDED``, and printed.

Interpreters are often shipped without the package ``test``; a build from source (pyenv) has it.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import importlib.util
import os
import sys
import time
import types
import unittest
from concurrent import futures
from functools import cache
from pathlib import Path
from typing import Any

import lab
from lab.cluster.futures import ClusterExecutor

SUITE = "test.test_concurrent_futures"
PARTS = ("executor", "util", "test_process_pool", "test_shutdown", "test_wait", "test_as_completed", "test_init",
         "test_deadlock")  # fmt: skip
MIXINS = {
    "threads": ("ExecutorTest", "ExecutorShutdownTest", "WaitTests", "AsCompletedTests", "InitializerMixin",
                "FailingInitializerMixin"),
    "processes": ("ProcessPoolExecutorTest", "ProcessPoolShutdownTest", "WaitTests", "AsCompletedTests", "InitializerMixin",
                  "FailingInitializerMixin", "ExecutorDeadlockTest"),
}  # fmt: skip
MIXINS["cluster"] = MIXINS["processes"]
ON_DEMAND = "counts workers that start one by one; ours are started by the constructor"
INTERNALS = "looks at the threads of ProcessPoolExecutor"
EXCLUDED = {
    "test_killed_child": "asks that one dead worker break the executor; ours gives its call to another",
    "test_idle_process_reuse_one": ON_DEMAND,
    "test_idle_process_reuse_multiple": ON_DEMAND,
    "test_processes_terminate": ON_DEMAND,
    "test_max_tasks_per_child_defaults_to_spawn_context": "asks for a start method of this host",
    "test_ressources_gced_in_workers": "needs a Manager",
    "test_python_finalization_error": INTERNALS,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": INTERNALS,
    "test_shutdown_deadlock_pickle": INTERNALS,
    "test_del_shutdown": f"{INTERNALS}; tests/cluster/test_futures.py asks the same without",
    "test_shutdown_no_wait": f"{INTERNALS}; tests/cluster/test_futures.py asks the same without",
    "test_hang_gh83386": "the suite skips it for process pools; tests/cluster/test_futures.py has it",
}
TIMEOUT = 90.0
ROOT = Path(__file__).parents[1]


class Cluster(ClusterExecutor):
    """The executor with its workers where the suite looks for them."""

    @property
    def _processes(self) -> Any:  # type: ignore[override]
        return {worker.pid: worker for worker in self._pool.workers()} if self._pool else {}


def available() -> bool:
    """Whether this interpreter has the suite."""
    return importlib.util.find_spec("test") is not None and importlib.util.find_spec(SUITE) is not None


def suite(place: str) -> list[type[unittest.TestCase]]:
    """The suite's test classes for a place."""
    return [_test_class(place, name) for name in MIXINS[place]]


def __getattr__(name: str) -> Any:
    """A test class by its name: a test that has one of its own methods called elsewhere pickles it so."""
    for place in lab.PLACES:
        if name.removeprefix(place.title()) in MIXINS[place]:
            return _test_class(place, name.removeprefix(place.title()))
    raise AttributeError(name)


@cache
def _test_class(place: str, name: str) -> type[unittest.TestCase]:
    names, _ = _names()
    mixin = {"threads": "ThreadPoolMixin", "processes": "ProcessPoolSpawnMixin", "cluster": "ExecutorMixin"}[place]
    ours = {"executor_type": Cluster, "ctx": "cluster", "get_context": lambda self: lab.get_context("cluster")}
    bases = (names[name], names[mixin], names["BaseTestCase"])
    return type(f"{place.title()}{name}", bases, {"__module__": __name__, **(ours if place == "cluster" else {})})


def _names() -> tuple[dict[str, Any], list[types.ModuleType]]:
    package = importlib.import_module(SUITE)  # one module up to Python 3.11
    parts = PARTS if hasattr(package, "__path__") else ()
    modules = [importlib.import_module(f"{SUITE}.{part}") for part in parts] or [package]
    return {name: value for module in modules for name, value in vars(module).items()}, modules


def _make_it_ours(module: Any) -> None:
    """Where a test names ProcessPoolExecutor, or starts a program that does, have it name ours."""
    if hasattr(module, "futures"):
        names = {**vars(futures), "process": futures.process, "ProcessPoolExecutor": Cluster}
        module.futures = types.SimpleNamespace(**names)
    if not hasattr(module, "assert_python_ok"):
        return
    original = module.assert_python_ok
    settings = lab.get_context("cluster").settings
    env = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "CROSSHOST_BROKER_URL": settings.broker_url,
           "CROSSHOST_AUTHKEY": settings.authkey.decode()}  # fmt: skip

    def assert_python_ok(option: str, program: str) -> Any:
        program = program.replace("from concurrent.futures import Cluster", "from conformance.futures import Cluster")
        program = program.replace("from multiprocessing import get_context", "from lab import get_context")
        return original(option, program, **env)

    module.assert_python_ok = assert_python_ok


class _Score(unittest.TextTestResult):
    """Ends a program in which a test hangs, with a traceback of all threads, and counts what passed."""

    passed = 0

    def startTest(self, test: unittest.TestCase) -> None:
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed += 1


def run(place: str, match: str = "", part: str = "") -> bool:
    """Run the suite on a place and print the score; whether everything that applies has passed."""
    loader, total, applicable, left_out = unittest.TestLoader(), 0, 0, set()
    begun = time.monotonic()
    if place == "cluster":
        for module in _names()[1]:
            _make_it_ours(module)
    for cls in suite(place):
        if part not in cls.__name__:
            continue
        names = [name for name in loader.getTestCaseNames(cls) if match in name]
        chosen = [name for name in names if place != "cluster" or name not in EXCLUDED]
        left_out |= set(names) - set(chosen)
        runner = unittest.TextTestRunner(sys.stderr, resultclass=_Score, verbosity=1)  # type: ignore[arg-type]
        result: Any = runner.run(unittest.TestSuite(map(cls, chosen)))
        total, applicable = total + result.passed, applicable + result.testsRun - len(result.skipped)
        print(f"  {cls.__name__:<36} {result.passed:>3} of {result.testsRun - len(result.skipped)}", flush=True)
        for test, reason in result.skipped:
            print(f"    skipped {test.id().rpartition('.')[2]}: {reason}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{place}: {total} of {applicable} that apply pass, {len(left_out)} left out, "
          f"{time.monotonic() - begun:.0f} s, CPython {version}")  # fmt: skip
    for name in sorted(left_out):
        print(f"  left out {name}: {EXCLUDED[name]}")
    return bool(total) and total == applicable


def main() -> int:
    """Exit code 0 if everything passes that applies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", choices=lab.PLACES, action="append", help="place; all three when not given")
    parser.add_argument("-k", "--match", default="", help="only tests whose name contains this")
    parser.add_argument("-p", "--part", default="", help="only classes whose name contains this")
    options = parser.parse_args()
    if not available():
        print(f"{sys.executable} has no {SUITE}; use an interpreter that was built from source.", file=sys.stderr)
        return 2
    main_module: Any = sys.modules["__main__"]
    main_module.__spec__ = None  # the children need not import this program again
    main_module.__file__ = None
    os.environ.setdefault("CROSSHOST_SLOTS", "6")  # a test may have two executors of five workers
    if "cluster" in (options.on or lab.PLACES):
        with lab.get_executor("cluster", 1) as executor:
            executor.submit(
                abs, 1
            ).result()  # starts the threads that a program keeps, which the suite would take for leaks
    passed = [run(place, options.match, options.part) for place in options.on or lab.PLACES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    from conformance import futures as as_imported

    sys.exit(as_imported.main())
