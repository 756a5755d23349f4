"""Scripts without a confusion, most of them near to one: the same with the lock held, the end closed, the order kept."""

from __future__ import annotations

SOUND: dict[str, str] = {}


def sound(name: str, source: str) -> None:
    SOUND[name] = source.lstrip("\n")


sound(
    "guarded",
    """
from multiprocessing import Process
def work():
    print("here")
if __name__ == "__main__":
    child = Process(target=work)
    child.start()
    child.join()
""",
)
sound(
    "guarded the other way round",
    """
import multiprocessing as mp
def f(q): q.put(mp.current_process().name)
def main():
    ctx = mp.get_context("spawn")
    q = ctx.Queue()
    p = ctx.Process(target=f, args=(q,))
    p.start(); print(q.get()); p.join()
if "__main__" == __name__:
    main()
""",
)
sound(
    "fork needs no guard, and takes lambdas",
    """
import multiprocessing
ctx = multiprocessing.get_context("fork")
p = ctx.Process(target=lambda: print("x"))
p.start()
p.join()
""",
)
sound(
    "threads need no guard, and take lambdas",
    """
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
t = threading.Thread(target=lambda: print("x"))
t.start()
t.join()
with ThreadPoolExecutor() as ex:
    print(list(ex.map(lambda n: n + 1, range(3))))
with ThreadPool(2) as pool:
    print(pool.map(lambda n: n * 2, range(3)))
""",
)
sound(
    "a factory of targets",
    """
from functools import partial
from multiprocessing import Process
def work(n, m):
    print(n, m)
def make(n):
    return partial(work, n)
if __name__ == "__main__":
    p = Process(target=make(3), args=(4,))
    p.start()
    p.join()
""",
)
sound(
    "a lock by the initializer",
    """
import multiprocessing as mp
lock = None
def init(l):
    global lock
    lock = l
def work(n):
    with lock:
        print(n)
if __name__ == "__main__":
    with mp.Pool(2, initializer=init, initargs=(mp.Lock(),)) as pool:
        pool.map(work, range(4))
""",
)
sound(
    "a manager's lock and queue in a pool",
    """
from multiprocessing import Manager, Pool
def work(lock, q, n):
    with lock:
        q.put(n)
if __name__ == "__main__":
    with Manager() as m:
        lock, q = m.Lock(), m.Queue()
        with Pool(2) as pool:
            pool.starmap(work, [(lock, q, n) for n in range(3)])
        print(sorted(q.get() for _ in range(3)))
""",
)
sound(
    "executor in an executor",
    """
from concurrent.futures import ProcessPoolExecutor
def leaf(n):
    return n
def branch(n):
    with ProcessPoolExecutor(2) as ex:
        return sum(ex.map(leaf, range(n)))
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as ex:
        print(list(ex.map(branch, [2, 3])))
""",
)
sound(
    "threads after processes, and joined before",
    """
import multiprocessing as mp
import threading
def work():
    pass
def main():
    t = threading.Thread(target=work)
    t.start()
    t.join()
    p = mp.Process(target=work)
    p.start()
    u = threading.Thread(target=work)
    u.start()
    p.join(); u.join()
if __name__ == "__main__":
    main()
""",
)
sound(
    "threads beside spawned processes",
    """
import multiprocessing as mp
from concurrent.futures import ThreadPoolExecutor
def work(n):
    return n
if __name__ == "__main__":
    mp.set_start_method("spawn")
    with ThreadPoolExecutor() as threads, mp.Pool(2) as pool:
        a = threads.submit(work, 1)
        print(pool.map(work, [1]), a.result())
""",
)
sound(
    "a daemon that serves",
    """
from multiprocessing import JoinableQueue, Process
def serve(q):
    while True:
        item = q.get()
        print(item)
        q.task_done()
if __name__ == "__main__":
    q = JoinableQueue()
    Process(target=serve, args=(q,), daemon=True).start()
    for n in range(5):
        q.put(n)
    q.join()
""",
)
sound(
    "a daemon thread beside a loop",
    """
import threading, time
beats = 0
def beat(stop):
    while not stop.wait(0.01):
        pass
stop = threading.Event()
t = threading.Thread(target=beat, args=(stop,), daemon=True)
t.start()
time.sleep(0.1)
stop.set()
""",
)
sound(
    "a cache in each worker",
    """
from multiprocessing import Pool
cache = {}
def square(n):
    if n not in cache:
        cache[n] = n * n
    return cache[n]
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.map(square, [1, 2, 1]))
    print(square(3))
""",
)
sound(
    "results come back",
    """
from multiprocessing import Process, Queue
def work(q, n):
    found = []
    found.append(n)
    q.put(found)
if __name__ == "__main__":
    q, found = Queue(), []
    ps = [Process(target=work, args=(q, n)) for n in range(3)]
    for p in ps: p.start()
    for _ in ps: found.extend(q.get())
    for p in ps: p.join()
    print(found)
""",
)
sound(
    "a list that is only read",
    """
from multiprocessing import Process
names = ["a", "b"]
def work(items):
    for item in items:
        print(item, names)
if __name__ == "__main__":
    items = [1, 2]
    items.append(3)
    p = Process(target=work, args=(items,))
    p.start(); p.join()
    print(items, names)
""",
)
sound(
    "threads share a list",
    """
import threading
results = []
def work(n, mine):
    results.append(n)
    mine.append(n)
mine = []
ts = [threading.Thread(target=work, args=(n, mine)) for n in range(3)]
for t in ts: t.start()
for t in ts: t.join()
print(results, mine)
""",
)
sound(
    "managed lists in a managed dict, and assigned back",
    """
from multiprocessing import Manager, Process
def work(d):
    d["k"].append(1)
    words = d["w"]
    words.append(2)
    d["w"] = words
if __name__ == "__main__":
    with Manager() as m:
        d = m.dict()
        d["k"] = m.list()
        d["w"] = []
        p = Process(target=work, args=(d,))
        p.start(); p.join()
        print(list(d["k"]), d["w"])
""",
)
sound(
    "a copy that is used",
    """
from multiprocessing import Manager, Process
def work(d):
    d["x"] = [3, 1, 2]
if __name__ == "__main__":
    with Manager() as m:
        d = m.dict()
        p = Process(target=work, args=(d,))
        p.start(); p.join()
        got = d["x"]
        got.sort()
        print(got)
""",
)
sound(
    "a managed list, appended to",
    """
import multiprocessing as mp
def work(out, n):
    out.append(n)
if __name__ == "__main__":
    with mp.Manager() as manager:
        out = manager.list()
        ps = [mp.Process(target=work, args=(out, n)) for n in range(3)]
        for p in ps: p.start()
        for p in ps: p.join()
        print(sorted(out))
""",
)
sound(
    "counter, get_lock",
    """
from multiprocessing import Process, Value
def work(counter):
    for _ in range(100):
        with counter.get_lock():
            counter.value += 1
if __name__ == "__main__":
    counter = Value("i", 0)
    ps = [Process(target=work, args=(counter,)) for _ in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(counter.value)
""",
)
sound(
    "counter, acquire, try, finally",
    """
import multiprocessing as mp
def work(counter, lock):
    lock.acquire()
    try:
        seen = counter.value
        counter.value = seen + 1
    finally:
        lock.release()
if __name__ == "__main__":
    counter, lock = mp.Value("i", 0, lock=False), mp.RLock()
    ps = [mp.Process(target=work, args=(counter, lock)) for _ in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
sound(
    "counter, a helper under the lock, a class",
    """
from multiprocessing import Lock, Process, Value
class Counter:
    def __init__(self):
        self.value, self.lock = Value("i", 0), Lock()
    def add(self):
        with self.lock:
            self._add()
    def _add(self):
        self.value.value += 1
def work(counter):
    counter.add()
if __name__ == "__main__":
    counter = Counter()
    ps = [Process(target=work, args=(counter,)) for _ in range(2)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
sound(
    "counter, one process",
    """
from multiprocessing import Process, Value
def work(progress):
    for _ in range(10):
        progress.value += 1
if __name__ == "__main__":
    progress = Value("i", 0)
    p = Process(target=work, args=(progress,))
    p.start(); p.join()
    print(progress.value)
""",
)
sound(
    "counter, one after the other",
    """
from multiprocessing import Process, Value
def work(total):
    total.value += 1
if __name__ == "__main__":
    total = Value("i", 0)
    for _ in range(3):
        p = Process(target=work, args=(total,))
        p.start()
        p.join()
    a, b = Process(target=work, args=(total,)), Process(target=work, args=(total,))
    a.start(); a.join()
    b.start(); b.join()
    print(total.value)
""",
)
sound(
    "counter, an element for each",
    """
from multiprocessing import Array, Process
def work(counts, n):
    for _ in range(10):
        counts[n] += 1
if __name__ == "__main__":
    counts = Array("i", 4)
    ps = [Process(target=work, args=(counts, n)) for n in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(sum(counts))
""",
)
sound(
    "counter, a semaphore of one, a condition",
    """
import multiprocessing as mp
def work(v, sem, cond, w):
    with sem:
        v.value += 1
    with cond:
        w.value += 1
        cond.notify_all()
if __name__ == "__main__":
    v, w, sem, cond = mp.Value("i", 0), mp.Value("i", 0), mp.Semaphore(1), mp.Condition()
    ps = [mp.Process(target=work, args=(v, sem, cond, w)) for _ in range(3)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
sound(
    "counter, threads under a lock",
    """
import threading
class Bank:
    def __init__(self):
        self._lock = threading.Lock()
        self.total = 0
    def pay(self, n):
        with self._lock:
            self.total += n
bank = Bank()
ts = [threading.Thread(target=bank.pay, args=(n,)) for n in range(5)]
for t in ts: t.start()
for t in ts: t.join()
print(bank.total)
""",
)
sound(
    "random, a seed for each",
    """
import os, random
from multiprocessing import Pool
def throw(seed):
    rng = random.Random(seed)
    return rng.random()
def plain(_):
    return random.random()
if __name__ == "__main__":
    random.seed(3)
    with Pool(3) as pool:
        print(pool.map(throw, range(4)), pool.map(plain, range(4)))
""",
)
sound(
    "random, numpy seeded by the worker's number",
    """
import numpy as np
from multiprocessing import Pool
def sample(seed):
    rng = np.random.default_rng(seed)
    return rng.normal()
def init():
    np.random.seed()
if __name__ == "__main__":
    with Pool(4, initializer=init) as pool:
        print(pool.map(sample, np.random.SeedSequence(1).spawn(4)))
""",
)
sound(
    "two locks, one order",
    """
from multiprocessing import Lock, Process
def one(a, b):
    with a:
        with b:
            print("one")
def two(a, b):
    with a, b:
        print("two")
if __name__ == "__main__":
    a, b = Lock(), Lock()
    ps = [Process(target=one, args=(a, b)), Process(target=two, args=(a, b))]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
sound(
    "two locks, never both",
    """
import multiprocessing as mp
def one(a, b):
    with a:
        print(1)
    with b:
        print(2)
def two(a, b):
    b.acquire()
    b.release()
    a.acquire()
    a.release()
if __name__ == "__main__":
    a, b = mp.Lock(), mp.Lock()
    p, q = mp.Process(target=one, args=(a, b)), mp.Process(target=two, args=(a, b))
    p.start(); q.start(); p.join(); q.join()
""",
)
sound(
    "two locks, under a third, and politely",
    """
import threading
a, b, gate = threading.Lock(), threading.Lock(), threading.Lock()
def one():
    with gate:
        with a:
            with b:
                pass
def two():
    with gate, b, a:
        pass
def three():
    with b:
        if a.acquire(timeout=0.1):
            a.release()
ts = [threading.Thread(target=f) for f in (one, two, three)]
for t in ts: t.start()
for t in ts: t.join()
""",
)
sound(
    "two locks, an RLock twice",
    """
import threading
lock = threading.RLock()
def outer():
    with lock:
        inner()
def inner():
    with lock:
        print("in")
t = threading.Thread(target=outer)
t.start()
t.join()
""",
)
sound(
    "philosophers, by number",
    """
from multiprocessing import Lock, Process
def dine(forks, i):
    first, second = sorted((i, (i + 1) % 5))
    with forks[first]:
        with forks[second]:
            print("eats")
if __name__ == "__main__":
    forks = [Lock() for _ in range(5)]
    ps = [Process(target=dine, args=(forks, i)) for i in range(5)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
sound(
    "philosophers, the last one turns round",
    """
from multiprocessing import Lock, Process
def dine(left, right):
    with left, right:
        print("eats")
if __name__ == "__main__":
    forks = [Lock() for _ in range(5)]
    ps = []
    for i in range(5):
        left, right = forks[i], forks[(i + 1) % 5]
        if i == 4:
            left, right = right, left
        ps.append(Process(target=dine, args=(left, right)))
        ps[-1].start()
    for p in ps: p.join()
""",
)
sound(
    "condition, while and wait_for",
    """
from multiprocessing import Condition, Process, Value
def one(cond, ready):
    with cond:
        while not ready.value:
            cond.wait()
def two(cond, ready):
    with cond:
        cond.wait_for(lambda: ready.value)
def three(cond, ready):
    with cond:
        while True:
            if ready.value:
                break
            cond.wait(1)
        if not cond.wait(timeout=0.01):
            print("nothing more")
if __name__ == "__main__":
    cond, ready = Condition(), Value("i", 0)
    ps = [Process(target=f, args=(cond, ready)) for f in (one, two, three)]
    for p in ps: p.start()
    with cond:
        ready.value = 1
        cond.notify_all()
    for p in ps: p.join()
""",
)
sound(
    "get, then join",
    """
from multiprocessing import Process, Queue
def work(q, n):
    for i in range(n):
        q.put(i)
    q.put(None)
def drain(q):
    return list(iter(q.get, None))
if __name__ == "__main__":
    q = Queue()
    p = Process(target=work, args=(q, 1000))
    p.start()
    while q.get() is not None:
        pass
    p.join()
""",
)
sound(
    "join, and another one reads",
    """
from multiprocessing import Process, Queue
def put(q):
    q.put(1)
def get(q, out):
    out.send(q.get())
if __name__ == "__main__":
    from multiprocessing import Pipe
    q = Queue()
    here, there = Pipe()
    a, b = Process(target=put, args=(q,)), Process(target=get, args=(q, there))
    a.start(); b.start()
    a.join(); b.join()
    print(here.recv())
""",
)
sound(
    "a size that is shown",
    """
from multiprocessing import Process, Queue
def work(q):
    while True:
        item = q.get()
        if item is None:
            break
        print(item, q.empty())
if __name__ == "__main__":
    q = Queue()
    p = Process(target=work, args=(q,))
    p.start()
    for n in (1, 2, None):
        q.put(n)
    p.join()
    print("left:", q.empty())
""",
)
sound(
    "empty of a queue in one thread",
    """
import queue
q = queue.Queue()
for n in range(3):
    q.put(n)
while not q.empty():
    print(q.get())
""",
)
sound(
    "pipe, closed everywhere",
    """
from multiprocessing import Pipe, Process
def send(end):
    with end:
        end.send(1)
if __name__ == "__main__":
    here, there = Pipe()
    p = Process(target=send, args=(there,))
    p.start()
    there.close()
    try:
        while True:
            print(here.recv())
    except EOFError:
        print("end")
    p.join()
""",
)
sound(
    "pipe, the child closes what it inherits",
    """
import multiprocessing as mp
def read(r, w):
    w.close()
    while True:
        try:
            print(r.recv())
        except EOFError:
            break
if __name__ == "__main__":
    r, w = mp.Pipe(False)
    p = mp.Process(target=read, args=(r, w))
    p.start()
    r.close()
    w.send(1)
    w.close()
    p.join()
""",
)
sound(
    "pipe, an end by agreement",
    """
from multiprocessing import Pipe, Process
def read(end):
    while (item := end.recv()) is not None:
        print(item)
if __name__ == "__main__":
    a, b = Pipe()
    p = Process(target=read, args=(b,))
    p.start()
    for item in (1, 2, None):
        a.send(item)
    p.join()
""",
)
sound(
    "results are fetched",
    """
from multiprocessing import Pool
def work(n):
    return 1 / n
if __name__ == "__main__":
    with Pool(2) as pool:
        rs = [pool.apply_async(work, (n,)) for n in (1, 2)]
        print([r.get(10) for r in rs])
        one = pool.map_async(work, [1])
        one.wait()
        print(one.get())
        pool.apply_async(work, (0,), error_callback=print)
        pool.close()
        pool.join()
""",
)
sound(
    "futures are asked, in several ways",
    """
import concurrent.futures
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
def work(n):
    return 1 / n
with ThreadPoolExecutor() as ex:
    by = {ex.submit(work, n): n for n in range(1, 4)}
    for future in concurrent.futures.as_completed(by):
        print(by[future], future.result())
    done, _ = wait([ex.submit(work, n) for n in (1, 2)])
    for f in done:
        if f.exception() is None:
            print("well")
    for f in as_completed([ex.submit(work, 3)]):
        f.result()
    for r in ex.map(work, [1, 2]):
        print(r)
""",
)
sound(
    "thrown away, and cannot raise",
    """
import time
from multiprocessing import Pool
def say(n):
    time.sleep(0.01)
    print("said", n)
def careful(n):
    try:
        print(1 / n)
    except Exception as exc:
        print(exc)
if __name__ == "__main__":
    pool = Pool(2)
    for n in range(3):
        pool.apply_async(say, (n,))
        pool.apply_async(careful, args=(n,))
    pool.close()
    pool.join()
""",
)
sound(
    "callbacks that only keep",
    """
from multiprocessing import Pool
def square(n):
    return n * n
if __name__ == "__main__":
    results = []
    def note(result):
        try:
            if result > 1:
                raise ValueError(result)
        except ValueError:
            print("large")
    with Pool(2) as pool:
        rs = [pool.apply_async(square, (n,), callback=results.append) for n in range(3)]
        r = pool.apply_async(square, (4,), callback=note)
        for each in [*rs, r]:
            each.wait()
    print(sorted(results))
""",
)
sound(
    "one pool asks another, and submits without waiting",
    """
from concurrent.futures import ThreadPoolExecutor
inner, outer = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
def leaf(n):
    print(n)
def branch(n):
    return inner.submit(leaf, n).result()
print([f.result() for f in [outer.submit(branch, n) for n in range(3)]])
""",
)
sound(
    "exit in a process of one's own",
    """
import os, sys
from multiprocessing import Process
def work(n):
    if n:
        sys.exit(n)
    os._exit(3)
if __name__ == "__main__":
    ps = [Process(target=work, args=(n,)) for n in range(2)]
    for p in ps: p.start()
    for p in ps: p.join()
    print([p.exitcode for p in ps])
""",
)
sound(
    "apply once, and async in a loop",
    """
from multiprocessing import Pool
def square(n):
    return n * n
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.apply(square, (3,)))
        rs = [pool.apply_async(square, (n,)) for n in range(4)]
        for r in rs:
            print(r.get())
""",
)
sound(
    "celery, a chain",
    """
from celery import Celery, chain
app = Celery("x")
@app.task
def add(a, b):
    return a + b
@app.task
def later(n):
    return chain(add.s(1, n), add.s(2))()
if __name__ == "__main__":
    print(add.delay(1, 2).get())
""",
)
sound(
    "nothing of all this",
    """
import json
import sys
def main(argv):
    data = {"a": [1]}
    data["a"].append(2)
    print(json.dumps(data))
    return 0
if __name__ == "__main__":
    sys.exit(main(sys.argv))
""",
)
sound(
    "asyncio",
    """
import asyncio
async def work(q):
    while not q.empty():
        print(await q.get())
async def main():
    q = asyncio.Queue()
    await q.put(1)
    cond = asyncio.Condition()
    await asyncio.gather(work(q))
asyncio.run(main())
""",
)

# --- whole programs, as one writes them -------------------------------------------------------------------------------

sound(
    "worker pool class with sentinels",
    """
import multiprocessing as mp
class Pool:
    def __init__(self, n):
        self.tasks = mp.JoinableQueue()
        self.results = mp.Queue()
        self.workers = [mp.Process(target=self._run, args=(self.tasks, self.results), daemon=True) for _ in range(n)]
        for w in self.workers: w.start()
    @staticmethod
    def _run(tasks, results):
        while True:
            task = tasks.get()
            if task is None:
                tasks.task_done(); break
            results.put(task * 2)
            tasks.task_done()
    def submit(self, t): self.tasks.put(t)
    def close(self):
        for _ in self.workers: self.tasks.put(None)
        self.tasks.join()
def main():
    p = Pool(2)
    for i in range(5): p.submit(i)
    out = sorted(p.results.get() for _ in range(5))
    p.close()
    for w in p.workers: w.join()
    print(out)
if __name__ == "__main__": main()
""",
)

sound(
    "readers writers",
    """
import threading
class RW:
    def __init__(self):
        self.readers = 0
        self.cv = threading.Condition()
    def acquire_read(self):
        with self.cv:
            self.readers += 1
    def release_read(self):
        with self.cv:
            self.readers -= 1
            if not self.readers: self.cv.notify_all()
    def write(self):
        with self.cv:
            while self.readers: self.cv.wait()
rw = RW()
def reader():
    rw.acquire_read()
    try: pass
    finally: rw.release_read()
ts = [threading.Thread(target=reader) for _ in range(3)] + [threading.Thread(target=rw.write)]
for t in ts: t.start()
for t in ts: t.join()
""",
)

sound(
    "bounded buffer with semaphores",
    """
from multiprocessing import Array, Lock, Process, Semaphore, Value
def produce(buf, head, lock, free, full, n):
    for i in range(n):
        free.acquire()
        with lock:
            buf[head.value % 4] = i
            head.value += 1
        full.release()
def consume(buf, tail, lock, free, full, n):
    for _ in range(n):
        full.acquire()
        with lock:
            print(buf[tail.value % 4])
            tail.value += 1
        free.release()
if __name__ == "__main__":
    buf, head, tail = Array("i", 4), Value("i", 0), Value("i", 0)
    lock, free, full = Lock(), Semaphore(4), Semaphore(0)
    a = Process(target=produce, args=(buf, head, lock, free, full, 9))
    b = Process(target=consume, args=(buf, tail, lock, free, full, 9))
    a.start(); b.start(); a.join(); b.join()
""",
)

sound(
    "map reduce",
    """
from collections import Counter
from multiprocessing import Pool
def count(text): return Counter(text.split())
def main():
    total = Counter()
    with Pool() as pool:
        for c in pool.imap_unordered(count, ["a b", "b c"]):
            total.update(c)
    print(total)
if __name__ == "__main__": main()
""",
)

sound(
    "progress with manager list and lock",
    """
from multiprocessing import Manager, Pool
def work(args):
    n, d, lock = args
    with lock:
        d["n"] = d.get("n", 0) + n
    return n
if __name__ == "__main__":
    with Manager() as m:
        d, lock = m.dict(), m.Lock()
        with Pool(2) as p:
            print(p.map(work, [(i, d, lock) for i in range(4)]), d["n"])
""",
)

sound(
    "event ping pong",
    """
from multiprocessing import Event, Process
def ping(a, b):
    for _ in range(3):
        a.wait(); a.clear(); print("ping"); b.set()
if __name__ == "__main__":
    a, b = Event(), Event()
    p = Process(target=ping, args=(a, b)); q = Process(target=ping, args=(b, a))
    p.start(); q.start(); a.set(); p.join(5); q.join(5)
""",
)

sound(
    "timer, sched, subprocess",
    """
import subprocess, threading
done = threading.Event()
t = threading.Timer(0.1, done.set)
t.start()
done.wait()
print(subprocess.run(["true"], check=True).returncode)
""",
)

sound(
    "thread queue workers",
    """
import queue, threading
q = queue.Queue()
out = queue.Queue()
def worker():
    while True:
        item = q.get()
        if item is None: break
        out.put(item ** 2)
        q.task_done()
ts = [threading.Thread(target=worker) for _ in range(3)]
for t in ts: t.start()
for i in range(10): q.put(i)
q.join()
for _ in ts: q.put(None)
for t in ts: t.join()
res = []
while not out.empty(): res.append(out.get())
print(sorted(res))
""",
)

sound(
    "process pool with initializer state",
    """
from concurrent.futures import ProcessPoolExecutor
model = None
def init(path):
    global model
    model = {"path": path}
def predict(x):
    return model["path"], x
def main():
    with ProcessPoolExecutor(2, initializer=init, initargs=("m",)) as ex:
        for r in ex.map(predict, range(3)): print(r)
if __name__ == "__main__": main()
""",
)

sound(
    "results in dict by future callback",
    """
from concurrent.futures import ThreadPoolExecutor
results = {}
def work(x): return 1 / x
def done(f):
    if f.exception() is None: results[id(f)] = f.result()
with ThreadPoolExecutor() as ex:
    for i in range(3):
        ex.submit(work, i).add_done_callback(done)
""",
)

sound(
    "pipe workers round trip",
    """
from multiprocessing import Pipe, Process
def work(conn):
    while True:
        msg = conn.recv()
        if msg == "stop": break
        conn.send(msg.upper())
    conn.close()
def main():
    pairs = [Pipe() for _ in range(2)]
    ps = [Process(target=work, args=(c,)) for _, c in pairs]
    for p in ps: p.start()
    for mine, its in pairs:
        its.close()
        mine.send("x"); print(mine.recv()); mine.send("stop")
    for p in ps: p.join()
if __name__ == "__main__": main()
""",
)

sound(
    "asyncio with executor",
    """
import asyncio
from concurrent.futures import ProcessPoolExecutor
def cpu(n): return sum(i * i for i in range(n))
async def main():
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor() as pool:
        print(await asyncio.gather(*(loop.run_in_executor(pool, cpu, n) for n in (10, 20))))
        print(await asyncio.to_thread(cpu, 3))
if __name__ == "__main__":
    asyncio.run(main())
""",
)

sound(
    "recursive tree of processes",
    """
from multiprocessing import Process, Queue
def sort(xs, q):
    if len(xs) < 2:
        q.put(xs); return
    a, b = Queue(), Queue()
    m = len(xs) // 2
    l = Process(target=sort, args=(xs[:m], a)); r = Process(target=sort, args=(xs[m:], b))
    l.start(); r.start()
    left, right = a.get(), b.get()
    l.join(); r.join()
    q.put(sorted(left + right))
if __name__ == "__main__":
    q = Queue()
    p = Process(target=sort, args=([3, 1, 2], q)); p.start()
    print(q.get()); p.join()
""",
)

sound(
    "shared memory",
    """
from multiprocessing import Process, shared_memory
def fill(name):
    m = shared_memory.SharedMemory(name=name)
    m.buf[0] = 7
    m.close()
if __name__ == "__main__":
    m = shared_memory.SharedMemory(create=True, size=8)
    p = Process(target=fill, args=(m.name,)); p.start(); p.join()
    print(m.buf[0]); m.close(); m.unlink()
""",
)

sound(
    "log listener",
    """
import logging, logging.handlers, multiprocessing
def listener(q):
    while True:
        record = q.get()
        if record is None: break
        logging.getLogger(record.name).handle(record)
def worker(q):
    logging.getLogger().addHandler(logging.handlers.QueueHandler(q))
    logging.getLogger().warning("hello")
if __name__ == "__main__":
    q = multiprocessing.Queue(-1)
    l = multiprocessing.Process(target=listener, args=(q,)); l.start()
    ws = [multiprocessing.Process(target=worker, args=(q,)) for _ in range(3)]
    for w in ws: w.start()
    for w in ws: w.join()
    q.put_nowait(None); l.join()
""",
)

sound(
    "pool apply async with wait and get list comp",
    """
import multiprocessing as mp
def f(x): return x / 2
def main():
    pool = mp.Pool(3)
    try:
        res = [pool.apply_async(f, args=(i,)) for i in range(4)]
        pool.close()
        print([r.get(timeout=5) for r in res])
    finally:
        pool.terminate(); pool.join()
if __name__ == "__main__": main()
""",
)

sound(
    "dining with waiter",
    """
import threading
forks = [threading.Lock() for _ in range(5)]
waiter = threading.Semaphore(4)
def dine(i):
    with waiter:
        with forks[i]:
            with forks[(i + 1) % 5]:
                print(i)
ts = [threading.Thread(target=dine, args=(i,)) for i in range(5)]
for t in ts: t.start()
for t in ts: t.join()
""",
)

sound(
    "hierarchical locks by id",
    """
import threading
class Acc:
    def __init__(self): self.lock = threading.Lock(); self.n = 0
def transfer(a, b):
    first, second = (a, b) if id(a) < id(b) else (b, a)
    with first.lock, second.lock:
        a.n -= 1; b.n += 1
x, y = Acc(), Acc()
ts = [threading.Thread(target=transfer, args=(x, y)), threading.Thread(target=transfer, args=(y, x))]
for t in ts: t.start()
for t in ts: t.join()
""",
)

sound(
    "a server with a thread for each that comes",
    """
import socket, threading
def serve(client):
    with client: client.sendall(b"hello")
server = socket.create_server(("127.0.0.1", 0))
while True:
    client, _ = server.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
""",
)

sound(
    "a context manager of one's own around the lock",
    """
import contextlib, multiprocessing as mp

@contextlib.contextmanager
def critical(lock):
    lock.acquire()
    try:
        yield
    finally:
        lock.release()

def work(lock, v):
    for _ in range(50):
        with critical(lock):
            v.value += 1

if __name__ == "__main__":
    lock, v = mp.Lock(), mp.Value("i", 0, lock=False)
    ps = [mp.Process(target=work, args=(lock, v)) for _ in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(v.value)
""",
)
sound(
    "a class of one's own that holds the lock",
    """
import threading

class Guard:
    def __init__(self): self._l = threading.Lock()
    def __enter__(self): self._l.acquire(); return self
    def __exit__(self, *e): self._l.release()

class Tally:
    def __init__(self):
        self.guard = Guard(); self.n = 0
    def add(self):
        with self.guard:
            self.n += 1

t = Tally()
ts = [threading.Thread(target=lambda: [t.add() for _ in range(100)]) for _ in range(3)]
[x.start() for x in ts]; [x.join() for x in ts]
print(t.n)
""",
)
sound(
    "locks entered on an ExitStack",
    """
import contextlib, multiprocessing as mp

def work(locks, v):
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            for l in locks:
                stack.enter_context(l)
            v.value += 1

if __name__ == "__main__":
    locks = [mp.Lock(), mp.Lock()]
    v = mp.Value("i", 0, lock=False)
    ps = [mp.Process(target=work, args=(locks, v)) for _ in range(3)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(v.value)
""",
)
sound(
    "one of those who meet at a barrier adds",
    """
import multiprocessing as mp

def work(me, b, v):
    for _ in range(3):
        if b.wait() == 0:
            v.value += 1
        b.wait()

if __name__ == "__main__":
    b, v = mp.Barrier(3), mp.Value("i", 0)
    ps = [mp.Process(target=work, args=(i, b, v)) for i in range(3)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(v.value)
""",
)
sound(
    "an event hands over",
    """
import multiprocessing as mp

def writer(v, ready):
    for _ in range(10):
        v.value += 1
    ready.set()

def reader(v, ready):
    ready.wait()
    v.value += 5

if __name__ == "__main__":
    v, ready = mp.Value("i", 0), mp.Event()
    a = mp.Process(target=writer, args=(v, ready)); b = mp.Process(target=reader, args=(v, ready))
    a.start(); b.start(); a.join(); b.join()
    print(v.value)
""",
)
sound(
    "two semaphores, turn by turn",
    """
from multiprocessing import Process, Semaphore, Value

def play(mine, other, v):
    for _ in range(5):
        mine.acquire()
        v.value += 1
        other.release()

if __name__ == "__main__":
    a, b, v = Semaphore(1), Semaphore(0), Value("i", 0)
    ps = [Process(target=play, args=(a, b, v)), Process(target=play, args=(b, a, v))]
    for p in ps: p.start()
    for p in ps: p.join()
    print(v.value)
""",
)
sound(
    "a dict of all threads, with a lock",
    """
import threading
count = {}
lock = threading.Lock()
def w(chunk):
    for x in chunk:
        with lock: count[x] = count.get(x, 0) + 1
ts = [threading.Thread(target=w, args=(c,)) for c in ("ab", "bc")]
for t in ts: t.start()
for t in ts: t.join()
print(count)
""",
)
sound(
    "a dict of all threads, each with a key of its own",
    """
import threading
count = {}
lock = threading.Lock()
def w(chunk):
    for x in chunk:
        me = threading.get_ident(); count[me] = count.get(me, 0) + 1
ts = [threading.Thread(target=w, args=(c,)) for c in ("ab", "bc")]
for t in ts: t.start()
for t in ts: t.join()
print(count)
""",
)
sound(
    "a dict of all threads, only set",
    """
import threading
count = {}
lock = threading.Lock()
def w(chunk):
    for x in chunk:
        count[x] = x * 2
ts = [threading.Thread(target=w, args=(c,)) for c in ("ab", "bc")]
for t in ts: t.start()
for t in ts: t.join()
print(count)
""",
)
sound(
    "guards that are no plain if",
    """
import multiprocessing as mp
def main():
    with mp.Pool(2) as pool: print(pool.map(abs, [-1]))
def start(name):
    if name == "__main__": main()
main() if __name__ == "__main__" else None
__name__ == "__main__" and main()
start(__name__)
for _ in range(__name__ == "__main__"): main()
if __name__ != "__main__": pass
else: main()
""",
)
