"""What each process has of its own, although its program means one for all, is told where it is handed over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.program.test_run_script import run, write

FORKED = {
    "a lock and a number that a module makes": (
        """
        from multiprocessing import Lock, Process, Value
        lock, counter = Lock(), Value("i", 0, lock=False)
        def work():
            for _ in range(5):
                with lock:
                    counter.value += 1  # TOLD lock counter
        if __name__ == "__main__":
            for process in [Process(target=work) for _ in range(2)]:
                process.start()
                process.join()
            print(counter.value)
        """,
        "0",
    ),
    "a queue, used by a function that the worker calls": (
        """
        import multiprocessing as mp
        results = mp.Queue()
        def keep(item):
            results.put(item)  # TOLD results
        def work(item):
            keep(item)
            return item
        if __name__ == "__main__":
            with mp.Pool(2) as pool:
                print(pool.map(work, range(3)), results.qsize())
        """,
        "[0, 1, 2] 0",
    ),
    "a method, and a function with a decorator": (
        """
        import functools, multiprocessing as mp
        lock, count = mp.Lock(), mp.Value("i", 0)
        def logged(function):
            @functools.wraps(function)
            def inner(*args):
                return function(*args)
            return inner
        class Scale:
            def __init__(self, by):
                self.by = by
            def times(self, x):
                with lock: return x * self.by
        @logged
        def work(item):  # TOLD lock count
            count.value += 1
        if __name__ == "__main__":
            with mp.Pool(2) as pool:
                print(pool.map(Scale(2).times, range(3)), pool.map(work, range(2)), count.value)
        """,
        "[0, 2, 4] [None, None] 0",
    ),
    "a class of processes": (
        """
        import multiprocessing as mp
        stop = mp.Event()
        class Worker(mp.Process):
            def run(self):
                print(stop.is_set())  # TOLD stop
        if __name__ == "__main__":
            stop.set()
            worker = Worker()
            worker.start()
            worker.join()
        """,
        "False",
    ),
    "a lock of a module beside": (
        """
        import multiprocessing as mp
        import beside
        def work(item):
            with beside.lock:  # TOLD lock
                return item
        if __name__ == "__main__":
            with mp.Pool(2) as pool:
                print(pool.map(work, range(3)))
        """,
        "[0, 1, 2]",
    ),
    "a global that main assigns": (
        """
        from concurrent.futures import ProcessPoolExecutor
        limit = None
        def below(number):
            return limit and number < limit  # TOLD limit
        def main():
            global limit
            limit = 2
            with ProcessPoolExecutor(2) as executor:
                print(list(executor.map(below, range(3))))
        if __name__ == "__main__":
            main()
        """,
        "[None, None, None]",
    ),
    "a table that is filled in later": (
        """
        import multiprocessing as mp
        table: dict[int, int] = {}
        log = []
        def fill():
            for number in range(3):
                table[number] = number ** 2
        def look_up(key):
            return table.get(key), len(log)  # TOLD table log
        class Unrelated:
            def method(self):
                return table, log
        if __name__ == "__main__":
            fill()
            log.append("filled")
            with mp.Pool(2) as pool:
                print(pool.map(look_up, [1]))
        """,
        "[(None, 0)]",
    ),
    "what is bound under the guard": (
        """
        import multiprocessing as mp
        def look_up(key):
            return data[key]  # TOLD data
        if __name__ == "__main__":
            data = {1: "one"}
            with mp.Pool(2) as pool:
                try:
                    pool.map(look_up, [1])
                except NameError as exc:
                    print(exc)
        """,
        "name 'data' is not defined",
    ),
}

SOUND = """
import multiprocessing as mp, threading
from concurrent.futures import ProcessPoolExecutor
N, model, cache, count, lock, known = 5, None, None, 0, None, {}
of_threads = threading.Lock()
def register(function):
    known[function.__name__] = function
    return function
def begin(m, a_lock):
    global model, lock
    model, lock = m, a_lock
squares = {}
def square(x):
    if x not in squares:
        squares[x] = x * x
    return squares[x]
defaults = []
def add(x):
    defaults.append(x)
class Late:
    add(1)
def cached():
    global cache
    if cache is None:
        cache = N
    return cache
@register
def predict(x):
    with of_threads, lock:
        return model * x + cached() + len(known) + square(x) * 0 + len(defaults) - 1
class Lazy:
    @property
    def __class__(self): raise RuntimeError("not set up")
    def __getattr__(self, name): raise RuntimeError("not set up")
    def __eq__(self, other): raise RuntimeError("not set up")
settings = Lazy()
class Worker(mp.Process):
    settings = settings
    @staticmethod
    def later(): return settings, known
    def __init__(self, queue):
        super().__init__()
        self.queue = queue
    def run(self):
        global count
        count += 1
        self.queue.put(count)
def done(_):
    global count
    count += 1
if __name__ == "__main__":
    square(3)
    lock = mp.Lock()
    with ProcessPoolExecutor(2, initializer=begin, initargs=(2, lock)) as executor:
        print(list(executor.map(predict, range(3))))
    with mp.Pool(2, begin, (3, lock)) as pool:
        print(pool.apply_async(predict, (1,), callback=done).get())
    queue = mp.Queue()
    worker = Worker(queue)
    worker.start()
    print(queue.get())
    worker.join()
"""


@pytest.mark.parametrize("name", FORKED)
def test_what_works_where_children_are_forked_is_told(tmp_path: Path, fleet: dict[str, str], name: str) -> None:
    program, printed = FORKED[name]
    write(tmp_path, "beside.py", "import multiprocessing\nlock = multiprocessing.Lock()\n")
    script = write(tmp_path, "script.py", program)
    done = run(script, "cluster", cwd=tmp_path, env=fleet)
    assert done.stdout.strip() == printed, done.stderr
    (line, names), *_ = [
        (number, line.split("# TOLD ")[1].split())
        for number, line in enumerate(script.read_text().splitlines(), 1)
        if "# TOLD" in line
    ]
    told = re.findall(r"script.py:(\d+): RuntimeWarning: .*\(\) uses the global '(\w+)'", done.stderr)
    assert sorted(name for _, name in told) == sorted(names), done.stderr
    assert all(abs(int(where) - line) <= 2 for where, _ in told), done.stderr


def test_who_hands_over_what_he_shares_is_told_nothing(tmp_path: Path, fleet: dict[str, str]) -> None:
    done = run(write(tmp_path, "script.py", SOUND), "cluster", cwd=tmp_path, env=fleet)
    assert (done.stdout, done.stderr) == ("[6, 8, 10]\n9\n1\n", "")


def test_the_filters_of_warnings_hold_for_it(tmp_path: Path, fleet: dict[str, str]) -> None:
    program, printed = FORKED["a lock and a number that a module makes"]
    script = write(tmp_path, "script.py", program)
    quiet = run(script, "cluster", cwd=tmp_path, env=fleet | {"PYTHONWARNINGS": "ignore"})
    assert (quiet.stdout.strip(), quiet.stderr) == (printed, "")
    strict = run(script, "cluster", cwd=tmp_path, env=fleet | {"PYTHONWARNINGS": "error::RuntimeWarning"})
    assert strict.returncode == 1
    assert "RuntimeWarning: work() uses the global 'lock'" in strict.stderr
