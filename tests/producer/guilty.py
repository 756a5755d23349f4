"""Scripts with a confusion, several of each, written in different ways.

The line that is to be named has a comment ``#! confusion``. They are read by tests; some are run as well.
"""

from __future__ import annotations

import re

MARK = re.compile(r"#! (\w+)")


def expected(source: str) -> set[tuple[str, int]]:
    """The confusions of a script with their lines, as its comments say."""
    return {(name, number) for number, line in enumerate(source.splitlines(), 1) for name in MARK.findall(line)}


GUILTY: dict[str, str] = {}


def guilty(name: str, source: str) -> None:
    assert expected(source), name
    GUILTY[name] = source.lstrip("\n")


# --- starting ----------------------------------------------------------------------------------------------------------

guilty(
    "main guard, process",
    """
from multiprocessing import Process
def work():
    print("here")
child = Process(target=work)
child.start()  #! main_guard
child.join()
""",
)
guilty(
    "main guard, pool in a with",
    """
import multiprocessing as mp

def square(x):
    return x * x

with mp.Pool(4) as pool:  #! main_guard
    print(pool.map(square, range(10)))
""",
)
guilty(
    "main guard, through a function",
    """
from concurrent.futures import ProcessPoolExecutor

def work(n):
    return n + 1

def main():
    with ProcessPoolExecutor() as executor:
        print(list(executor.map(work, [1, 2])))

main()  #! main_guard
""",
)
guilty(
    "main guard, a class and a manager",
    """
import multiprocessing

class Worker(multiprocessing.Process):
    def run(self):
        print(self.name)

workers = [Worker() for _ in range(2)]
for worker in workers:
    worker.start()  #! main_guard
for worker in workers:
    worker.join()
""",
)
guilty(
    "main guard, spawn asked for",
    """
import multiprocessing as mp
def f(q):
    q.put(1)
mp.set_start_method("spawn")
q = mp.Queue()
p = mp.Process(target=f, args=(q,))
p.start()  #! main_guard
print(q.get())
p.join()
""",
)
guilty(
    "lambda, pool",
    """
from multiprocessing import Pool
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.map(lambda x: x + 1, range(3)))  #! lambda
""",
)
guilty(
    "lambda, by a name and an executor",
    """
import concurrent.futures
double = lambda x: 2 * x
def main():
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        future = executor.submit(double, 4)  #! lambda
        print(future.result())
if __name__ == "__main__":
    main()
""",
)
guilty(
    "lambda, a local function",
    """
import multiprocessing as mp
def main():
    def work(n):
        print(n)
    workers = []
    for n in range(3):
        p = mp.Process(target=work, args=(n,))  #! lambda
        workers.append(p)
        p.start()
    for p in workers:
        p.join()
if __name__ == '__main__':
    main()
""",
)
guilty(
    "lambda, in a partial",
    """
from functools import partial
from multiprocessing import get_context
if __name__ == "__main__":
    ctx = get_context("spawn")
    with ctx.Pool() as pool:
        r = pool.apply_async(partial(lambda a, b: a + b, 1), (2,))  #! lambda
        print(r.get())
""",
)
guilty(
    "called here, process",
    """
from multiprocessing import Process
def work(n):
    for i in range(n):
        print(i)
if __name__ == "__main__":
    p = Process(target=work(3))  #! called_here
    p.start()
    p.join()
""",
)
guilty(
    "called here, thread and pool",
    """
import threading
from multiprocessing import Pool
def hello():
    print("hello")
def one(n):
    print(n)
if __name__ == "__main__":
    t = threading.Thread(target=hello())  #! called_here
    t.start()
    t.join()
    with Pool(1) as pool:
        pool.apply(one(1))  #! called_here
""",
)
guilty(
    "unsendable, a lock to map",
    """
from functools import partial
from multiprocessing import Lock, Pool
def work(lock, n):
    with lock:
        print(n)
if __name__ == "__main__":
    lock = Lock()
    with Pool(2) as pool:
        pool.map(partial(work, lock), range(3))
        pool.apply(work, (lock, 1))  #! unsendable
""",
)
guilty(
    "unsendable, a queue to an executor",
    """
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
def put(q, n):
    q.put(n)
if __name__ == "__main__":
    q = mp.Queue()
    with ProcessPoolExecutor() as ex:
        fs = [ex.submit(put, q, n) for n in range(3)]  #! unsendable
        for f in fs:
            f.result()
    print(q.get())
""",
)
guilty(
    "nested, pool in a pool",
    """
from multiprocessing import Pool
def inner(x):
    return x * x
def outer(n):
    with Pool(2) as pool:  #! nested
        return sum(pool.map(inner, range(n)))
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.map(outer, [1, 2, 3]))
""",
)
guilty(
    "nested, process of a daemon",
    """
import multiprocessing as mp
def leaf():
    print("leaf")
def branch():
    p = mp.Process(target=leaf)
    p.start()  #! nested
    p.join()
if __name__ == "__main__":
    root = mp.Process(target=branch)
    root.daemon = True
    root.start()
    root.join()
""",
)
guilty(
    "fork beside threads, explicit",
    """
import multiprocessing as mp
import threading
lock = threading.Lock()
def log():
    for _ in range(1000):
        with lock:
            print("x")
def child():
    with lock:
        print("child")
if __name__ == "__main__":
    mp.set_start_method("fork")
    t = threading.Thread(target=log)
    t.start()
    p = mp.Process(target=child)
    p.start()  #! fork_threads
    p.join()
    t.join()
""",
)
guilty(
    "fork beside threads, an executor",
    """
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pool
def fetch(n):
    return n
def crunch(n):
    return n * n
def main():
    with ThreadPoolExecutor(4) as threads:
        pages = threads.map(fetch, range(10))
        with Pool(2) as pool:  #! fork_threads
            print(pool.map(crunch, range(10)))
        print(list(pages))
if __name__ == "__main__":
    main()
""",
)
guilty(
    "daemon, process",
    """
import time
from multiprocessing import Process
def save(path):
    time.sleep(1)
    with open(path, "w") as file:
        file.write("done")
if __name__ == "__main__":
    Process(target=save, args=("out.txt",), daemon=True).start()  #! daemon_lost
    print("saving")
""",
)
guilty(
    "daemon, attribute and thread",
    """
import threading
def write():
    for n in range(100000):
        print(n)
class Job:
    def go(self):
        self.t = threading.Thread(target=write)
        self.t.daemon = True
        self.t.start()  #! daemon_lost
def main():
    Job().go()
    print("end")
main()
""",
)

# --- sharing -----------------------------------------------------------------------------------------------------------

guilty(
    "global, list",
    """
from multiprocessing import Process
results = []
def work(n):
    results.append(n * n)  #! global
if __name__ == "__main__":
    ps = [Process(target=work, args=(n,)) for n in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(results)
""",
)
guilty(
    "global, counter by pool",
    """
import multiprocessing
done = 0
def work(n):
    global done
    done += 1  #! global
    return n
def main():
    with multiprocessing.Pool(2) as pool:
        pool.map(work, range(10))
    print("done", done)
if __name__ == "__main__":
    main()
""",
)
guilty(
    "global, dict by executor",
    """
from concurrent.futures import ProcessPoolExecutor
cache = {}
def work(n):
    cache[n] = n ** 2  #! global
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as ex:
        list(ex.map(work, range(5)))
    print(len(cache))
""",
)
guilty(
    "copy, list as an argument",
    """
import multiprocessing as mp
def collect(found, n):
    for i in range(n):
        found.append(i)  #! global
def main():
    found = []
    p = mp.Process(target=collect, args=(found, 5))
    p.start()
    p.join()
    print("found", len(found))
if __name__ == "__main__":
    main()
""",
)
guilty(
    "copy, attribute of a process class",
    """
from multiprocessing import Process
class Sum(Process):
    def __init__(self, numbers):
        super().__init__()
        self.numbers = numbers
        self.total = 0
    def run(self):
        self.total = sum(self.numbers)  #! global
if __name__ == "__main__":
    s = Sum([1, 2, 3])
    s.start()
    s.join()
    print(s.total)
""",
)
guilty(
    "copy, a bound method",
    """
import multiprocessing
class Account:
    def __init__(self):
        self.balance = 0
        self.log = []
    def pay(self, n):
        self.balance += n  #! global
        self.log.append(n)
def main():
    account = Account()
    p = multiprocessing.Process(target=account.pay, args=(5,))
    p.start(); p.join()
    print(account.balance)
if __name__ == "__main__":
    main()
""",
)
guilty(
    "managed, append in a dict",
    """
from multiprocessing import Manager, Process
def work(d):
    d["k"].append(1)  #! managed
if __name__ == "__main__":
    with Manager() as m:
        d = m.dict({"k": []})
        p = Process(target=work, args=(d,))
        p.start(); p.join()
        print(d)
""",
)
guilty(
    "managed, nested dict",
    """
import multiprocessing as mp
def work(shared, name):
    shared["users"][name] = 1  #! managed
def main():
    manager = mp.Manager()
    shared = manager.dict()
    shared["users"] = {}
    ps = [mp.Process(target=work, args=(shared, str(i))) for i in range(2)]
    [p.start() for p in ps]
    [p.join() for p in ps]
    print(shared["users"])
if __name__ == "__main__":
    main()
""",
)
guilty(
    "managed, a name, a list of lists, setdefault",
    """
from multiprocessing import Manager, Pool
def work(args):
    rows, groups, i = args
    return i
def fill(rows, groups, i):
    row = rows[i]
    row.append(i)  #! managed
    groups.setdefault("odd", []).append(i)  #! managed
if __name__ == "__main__":
    m = Manager()
    rows, groups = m.list([[], []]), m.dict()
    with Pool(2) as pool:
        pool.apply(fill, (rows, groups, 1))
    print(list(rows))
""",
)
guilty(
    "managed, a namespace",
    """
from multiprocessing import Manager, Process
def work(ns):
    ns.items.append("x")  #! managed
if __name__ == "__main__":
    m = Manager()
    ns = m.Namespace()
    ns.items = []
    p = Process(target=work, args=(ns,))
    p.start()
    p.join()
    print(ns.items)
""",
)
guilty(
    "counter, no lock",
    """
from multiprocessing import Process, Value
def work(counter):
    for _ in range(1000):
        counter.value += 1  #! counter
if __name__ == "__main__":
    counter = Value("i", 0)
    ps = [Process(target=work, args=(counter,)) for _ in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(counter.value)
""",
)
guilty(
    "counter, by an initializer",
    """
import multiprocessing
total = None
def init(shared):
    global total
    total = shared
def work(n):
    total.value = total.value + n  #! counter
def main():
    shared = multiprocessing.Value("d", 0.0)
    with multiprocessing.Pool(3, initializer=init, initargs=(shared,)) as pool:
        pool.map(work, range(100))
    print(shared.value)
if __name__ == "__main__":
    main()
""",
)
guilty(
    "counter, another lock, in pieces",
    """
import multiprocessing as mp
def work(counter, lock):
    with lock:
        seen = counter.value
    seen += 1
    with lock:
        counter.value = seen  #! counter
if __name__ == "__main__":
    counter, lock = mp.RawValue("i", 0), mp.Lock()
    a = mp.Process(target=work, args=(counter, lock))
    b = mp.Process(target=work, args=(counter, lock))
    a.start(); b.start(); a.join(); b.join()
    print(counter.value)
""",
)
guilty(
    "counter, a lock of one's own",
    """
from multiprocessing import Lock, Process, Value
def work(counter):
    lock = Lock()
    for _ in range(100):
        with lock:
            counter.value += 1  #! counter
def main():
    counter = Value("i")
    ps = []
    for _ in range(2):
        ps.append(Process(target=work, args=(counter,)))
        ps[-1].start()
    for p in ps:
        p.join()
if __name__ == "__main__":
    main()
""",
)
guilty(
    "counter, one of two holds the lock",
    """
from multiprocessing import Process, Value
def careful(v):
    with v.get_lock():
        v.value += 1
def careless(v):
    v.value -= 1  #! counter
if __name__ == "__main__":
    v = Value("i", 0)
    one, two = Process(target=careful, args=(v,)), Process(target=careless, args=(v,))
    one.start(); two.start()
    one.join(); two.join()
""",
)
guilty(
    "counter, a managed dict",
    """
from multiprocessing import Manager, Pool
def count(args):
    return args
def add(d, word):
    d[word] = d.get(word, 0) + 1  #! counter
if __name__ == "__main__":
    with Manager() as m, Pool(4) as pool:
        d = m.dict()
        rs = [pool.apply_async(add, (d, w)) for w in "a b a".split()]
        for r in rs:
            r.get()
        print(d)
""",
)
guilty(
    "counter, threads and a global",
    """
import threading
count = 0
def work():
    global count
    for _ in range(100000):
        count += 1  #! counter
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(count)
""",
)
guilty(
    "counter, threads and an object",
    """
from concurrent.futures import ThreadPoolExecutor
class Stats:
    def __init__(self):
        self.hits = 0
    def hit(self):
        seen = self.hits
        self.hits = seen + 1  #! counter
def main():
    stats = Stats()
    with ThreadPoolExecutor(8) as ex:
        fs = [ex.submit(stats.hit) for _ in range(100)]
        for f in fs:
            f.result()
    print(stats.hits)
main()
""",
)
guilty(
    "random, seeded at the top",
    """
import random
from multiprocessing import Pool
random.seed(1)
def throw(_):
    return random.random()  #! random
if __name__ == "__main__":
    with Pool(4) as pool:
        print(pool.map(throw, range(4)))
""",
)
guilty(
    "random, seeded in the worker",
    """
import multiprocessing as mp
import random
SEED = 7
def walk(q):
    random.seed(SEED)  #! random
    q.put([random.randint(0, 9) for _ in range(5)])
if __name__ == "__main__":
    q = mp.Queue()
    ps = [mp.Process(target=walk, args=(q,)) for _ in range(3)]
    for p in ps: p.start()
    print([q.get() for _ in ps])
    for p in ps: p.join()
""",
)
guilty(
    "random, numpy after a fork",
    """
import numpy as np
from multiprocessing import Pool
def sample(_):
    return np.random.rand()  #! random
if __name__ == "__main__":
    with Pool(4) as pool:
        print(pool.map(sample, range(8)))
""",
)
guilty(
    "random, a generator that is copied",
    """
import random
from multiprocessing import Process, Queue
def draw(rng, q):
    q.put(rng.randrange(100))  #! random
if __name__ == "__main__":
    q, rng = Queue(), random.Random(3)
    ps = [Process(target=draw, args=(rng, q)) for _ in range(2)]
    for p in ps: p.start()
    print(q.get(), q.get())
    for p in ps: p.join()
""",
)
guilty(
    "random, an initializer for all",
    """
from multiprocessing import Pool
import random
def init():
    random.seed(0)  #! random
def throw(_):
    return random.choice("abc")
if __name__ == "__main__":
    with Pool(3, init) as pool:
        print(pool.map(throw, range(6)))
""",
)
guilty(
    "a lock for each",
    """
import multiprocessing as mp
lock = mp.Lock()
def work(n):
    with lock:  #! lock_each
        print(n)
if __name__ == "__main__":
    for n in range(3):
        mp.Process(target=work, args=(n,)).start()
""",
)
guilty(
    "a queue under the guard",
    """
from multiprocessing import Process, Queue
def work():
    queue.put(1)  #! lock_each
if __name__ == "__main__":
    queue = Queue()
    p = Process(target=work)
    p.start()
    print(queue.get())
    p.join()
""",
)

# --- locks -------------------------------------------------------------------------------------------------------------

guilty(
    "two locks, two functions",
    """
from multiprocessing import Lock, Process
def one(a, b):
    with a:
        with b:  #! two_locks
            print("one")
def two(a, b):
    with b:
        with a:
            print("two")
if __name__ == "__main__":
    a, b = Lock(), Lock()
    ps = [Process(target=one, args=(a, b)), Process(target=two, args=(a, b))]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
guilty(
    "two locks, handed over crosswise",
    """
import multiprocessing as mp
def transfer(source, target):
    source.acquire()
    target.acquire()  #! two_locks
    target.release()
    source.release()
if __name__ == "__main__":
    x = mp.Lock()
    y = mp.Lock()
    p = mp.Process(target=transfer, args=(x, y))
    q = mp.Process(target=transfer, args=(y, x))
    p.start(); q.start(); p.join(); q.join()
""",
)
guilty(
    "two locks, threads and objects",
    """
import threading
class Account:
    def __init__(self, balance):
        self.balance = balance
first_lock = threading.Lock()
second_lock = threading.Lock()
def pay():
    with first_lock, second_lock:  #! two_locks
        pass
def refund():
    with second_lock:
        helper()
def helper():
    with first_lock:
        pass
t1 = threading.Thread(target=pay); t2 = threading.Thread(target=refund)
t1.start(); t2.start(); t1.join(); t2.join()
""",
)
guilty(
    "two locks, philosophers",
    """
from multiprocessing import Lock, Process
def dine(left, right):
    with left:
        with right:  #! two_locks
            print("eats")
if __name__ == "__main__":
    forks = [Lock() for _ in range(5)]
    ps = [Process(target=dine, args=(forks[i], forks[(i + 1) % 5])) for i in range(5)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
guilty(
    "one lock twice",
    """
import multiprocessing as mp
def add(v, lock):
    with lock:
        log(v, lock)
def log(v, lock):
    with lock:  #! two_locks
        print(v.value)
if __name__ == "__main__":
    v, lock = mp.Value("i", 0), mp.Lock()
    p = mp.Process(target=add, args=(v, lock))
    p.start()
    p.join()
""",
)
guilty(
    "condition, if",
    """
from multiprocessing import Condition, Process, Value
def consume(cond, ready):
    with cond:
        if not ready.value:
            cond.wait()  #! condition
        print("got it")
def produce(cond, ready):
    with cond:
        ready.value = 1
        cond.notify_all()
if __name__ == "__main__":
    cond, ready = Condition(), Value("i", 0)
    a = Process(target=consume, args=(cond, ready)); b = Process(target=produce, args=(cond, ready))
    a.start(); b.start(); a.join(); b.join()
""",
)
guilty(
    "condition, if in a class, acquire and release",
    """
import threading
class Buffer:
    def __init__(self):
        self.cv = threading.Condition()
        self.items = []
    def get(self):
        self.cv.acquire()
        if len(self.items) == 0:
            self.cv.wait()  #! condition
        item = self.items.pop()
        self.cv.release()
        return item
    def put(self, item):
        with self.cv:
            self.items.append(item)
            self.cv.notify()
buffer = Buffer()
threading.Thread(target=buffer.get).start()
buffer.put(1)
""",
)
guilty(
    "condition, loop outside, bare",
    """
import multiprocessing as mp
def worker(cv, stop):
    while True:
        with cv:
            if not stop.value:
                cv.wait()  #! condition
            break
def other(cv):
    with cv:
        cv.wait()  #! condition
if __name__ == "__main__":
    cv = mp.Condition(); stop = mp.Value("b", 0)
    p = mp.Process(target=worker, args=(cv, stop)); q = mp.Process(target=other, args=(cv,))
    p.start(); q.start()
    with cv:
        stop.value = 1
        cv.notify_all()
    p.join(); q.join()
""",
)

# --- queues and pipes --------------------------------------------------------------------------------------------------

guilty(
    "join first",
    """
from multiprocessing import Process, Queue
def work(q):
    q.put("x" * 1000000)
if __name__ == "__main__":
    q = Queue()
    p = Process(target=work, args=(q,))
    p.start()
    p.join()  #! join_first
    print(len(q.get()))
""",
)
guilty(
    "join first, many and a helper",
    """
import multiprocessing as mp
def work(q, n):
    for i in range(n):
        q.put(list(range(1000)))
def collect(q, number):
    return [q.get() for _ in range(number)]
def main():
    q = mp.Queue()
    procs = []
    for _ in range(3):
        p = mp.Process(target=work, args=(q, 50))
        procs.append(p)
        p.start()
    for p in procs:
        p.join()  #! join_first
    print(len(collect(q, 150)))
if __name__ == "__main__":
    main()
""",
)
guilty(
    "join first, a class",
    """
import multiprocessing
class Reader(multiprocessing.Process):
    def __init__(self, out):
        multiprocessing.Process.__init__(self)
        self.out = out
    def run(self):
        self.out.put(b"0" * 10**6)
if __name__ == "__main__":
    out = multiprocessing.SimpleQueue()
    r = Reader(out)
    r.start()
    r.join()  #! join_first
    data = out.get()
""",
)
guilty(
    "empty, while",
    """
from multiprocessing import Process, Queue
def work(q):
    while not q.empty():  #! empty
        print(q.get())
if __name__ == "__main__":
    q = Queue()
    for i in range(10):
        q.put(i)
    ps = [Process(target=work, args=(q,)) for _ in range(2)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)
guilty(
    "empty, if and qsize",
    """
import multiprocessing as mp
def work(q, out):
    while True:
        if q.qsize() == 0:  #! empty
            break
        out.put(q.get() + 1)
def main():
    q, out = mp.Queue(), mp.Queue()
    q.put(1)
    p = mp.Process(target=work, args=(q, out)); p.start()
    print(out.get())
    p.join()
if __name__ == "__main__":
    main()
""",
)
guilty(
    "empty, get_nowait",
    """
import queue
from multiprocessing import Process, Queue
def work(tasks):
    while True:
        try:
            task = tasks.get_nowait()  #! empty
        except queue.Empty:
            break
        print(task)
if __name__ == "__main__":
    tasks = Queue()
    for n in range(5):
        tasks.put(n)
    p = Process(target=work, args=(tasks,))
    p.start(); p.join()
""",
)
guilty(
    "pipe end, the reader's parent",
    """
from multiprocessing import Pipe, Process
def send(end):
    for n in range(3):
        end.send(n)
    end.close()
if __name__ == "__main__":
    here, there = Pipe()
    p = Process(target=send, args=(there,))
    p.start()
    while True:
        try:
            print(here.recv())  #! pipe_end
        except EOFError:
            break
    p.join()
""",
)
guilty(
    "pipe end, the reader is the child",
    """
import multiprocessing as mp
def read(conn):
    try:
        while True:
            print(conn.recv())  #! pipe_end
    except EOFError:
        print("end")
def main():
    r, w = mp.Pipe(duplex=False)
    child = mp.Process(target=read, args=(r,))
    child.start()
    w.send(1)
    child.join()
if __name__ == "__main__":
    main()
""",
)
guilty(
    "pipe end, closed too late",
    """
from multiprocessing import Pipe, Process
def read(r, w):
    w.close()
    try:
        while True:
            r.recv()
    except EOFError:
        pass
if __name__ == "__main__":
    r, w = Pipe(False)
    p = Process(target=read, args=(r, w))
    p.start()
    w.send("x")
    p.join()  #! pipe_end
    w.close()
""",
)

# --- pools -------------------------------------------------------------------------------------------------------------

guilty(
    "vanish, thrown away",
    """
from multiprocessing import Pool
def work(n):
    return 1 / n
if __name__ == "__main__":
    pool = Pool(2)
    for n in range(3):
        pool.apply_async(work, (n,))  #! vanish
    pool.close()
    pool.join()
    print("done")
""",
)
guilty(
    "vanish, kept and not asked",
    """
import multiprocessing as mp
def load(path):
    with open(path) as file:
        return file.read()
def main():
    with mp.Pool() as pool:
        results = [pool.apply_async(load, (p,)) for p in ("a", "b")]  #! vanish
        pool.close()
        pool.join()
    print(len(results), "files")
if __name__ == "__main__":
    main()
""",
)
guilty(
    "vanish, submit",
    """
from concurrent.futures import ThreadPoolExecutor, wait
def fetch(url):
    raise ConnectionError(url)
with ThreadPoolExecutor() as ex:
    futures = []
    for url in ["x", "y"]:
        futures.append(ex.submit(fetch, url))  #! vanish
    wait(futures)
print("all fetched")
""",
)
guilty(
    "vanish, map of an executor",
    """
import concurrent.futures as cf
def check(n):
    assert n < 3
    return n
def main():
    with cf.ProcessPoolExecutor(2) as ex:
        ex.map(check, range(5))  #! vanish
if __name__ == "__main__":
    main()
""",
)
guilty(
    "callback raises",
    """
from multiprocessing import Pool
def square(n):
    return n * n
def note(result):
    if result > 3:
        raise ValueError(result)  #! callback
    print(result)
if __name__ == "__main__":
    with Pool(2) as pool:
        rs = [pool.apply_async(square, (n,), callback=note) for n in range(4)]
        print([r.get() for r in rs])
""",
)
guilty(
    "callback takes two",
    """
import multiprocessing as mp
class Job:
    def done(self, result, more):
        print(result, more)
def f(x):
    return x
if __name__ == "__main__":
    job = Job()
    pool = mp.Pool(1)
    r = pool.map_async(f, [1, 2], callback=job.done)  #! callback
    r.wait(5)
    print(r.get(1))
""",
)
guilty(
    "get inside, threads",
    """
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(2)
def leaf(n):
    return n
def branch(n):
    return sum(f.result() for f in [executor.submit(leaf, i) for i in range(n)])  #! get_inside
fs = [executor.submit(branch, 2) for _ in range(4)]
print([f.result() for f in fs])
""",
)
guilty(
    "get inside, a pool",
    """
from multiprocessing.pool import ThreadPool
pool = ThreadPool(1)
def inner(x):
    return x + 1
def outer(x):
    return pool.apply(inner, (x,))  #! get_inside
def main():
    print(pool.map(outer, [1, 2]))
main()
""",
)
guilty(
    "get inside, celery",
    """
from celery import Celery, shared_task
app = Celery("x")
@app.task
def add(a, b):
    return a + b
@shared_task(bind=True)
def both(self):
    first = add.delay(1, 2)
    return first.get() + add.apply_async((3, 4)).get()  #! get_inside
""",
)
guilty(
    "loss, exit",
    """
import sys
from multiprocessing import Pool
def work(n):
    if n == 3:
        sys.exit(1)  #! loss
    return n
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.map(work, range(5)))
""",
)
guilty(
    "loss, kill",
    """
import multiprocessing as mp
import os, signal
def helper():
    os.kill(os.getpid(), signal.SIGKILL)  #! loss
def work(n):
    if n:
        helper()
def main():
    pool = mp.Pool(2)
    pool.apply(work, (1,))
if __name__ == "__main__":
    main()
""",
)
guilty(
    "one by one, apply",
    """
from multiprocessing import Pool
def square(n):
    return n * n
if __name__ == "__main__":
    with Pool(4) as pool:
        print([pool.apply(square, (n,)) for n in range(8)])  #! one_by_one
""",
)
guilty(
    "one by one, result at once",
    """
from concurrent.futures import ProcessPoolExecutor
def work(n):
    return n + 1
def main():
    total = 0
    with ProcessPoolExecutor() as ex:
        for n in range(5):
            total += ex.submit(work, n).result()  #! one_by_one
    print(total)
if __name__ == "__main__":
    main()
""",
)

# --- the same in other handwriting ----------------------------------------------------------------------------------

guilty(
    "in other words, mp star import",
    """
from multiprocessing import *
def work(q):
    q.put([0]*100000)
if __name__ == "__main__":
    q = Queue()
    p = Process(target=work, args=(q,))
    p.start()
    p.join()  #! join_first
    print(q.get())
""",
)

guilty(
    "in other words, kwargs",
    """
import multiprocessing as mp
def work(n, out=None):
    out.append(n)  #! global
if __name__ == "__main__":
    out = []
    ps = [mp.Process(target=work, args=[i], kwargs={"out": out}) for i in range(3)]
    [p.start() for p in ps]; [p.join() for p in ps]
    print(out)
""",
)

guilty(
    "in other words, dict of processes, zip",
    """
import multiprocessing as mp
def work(v):
    for i in range(10):
        x = v.value
        x = x + 1
        v.value = x  #! counter
if __name__ == "__main__":
    v = mp.Value("i", 0)
    procs = {i: mp.Process(target=work, args=(v,)) for i in range(3)}
    for i, p in procs.items():
        p.start()
    for p in procs.values():
        p.join()
""",
)

guilty(
    "in other words, join in map",
    """
from multiprocessing import Process, Queue
def produce(q):
    for i in range(100000):
        q.put(i)
def main():
    q = Queue()
    workers = []
    for i in range(2):
        w = Process(target=produce, args=(q,), daemon=True)
        w.start()
        workers.append(w)
    for w in workers: w.join()  #! join_first
    total = 0
    while True:
        try:
            total += q.get(timeout=1)
        except Exception:
            break
    print(total)
if __name__ == '__main__': main()
""",
)

guilty(
    "in other words, managed via self",
    """
from multiprocessing import Manager, Process
class Store:
    def __init__(self):
        self.m = Manager()
        self.d = self.m.dict()
        self.d["x"] = {"n": 0}
def work(d):
    inner = d["x"]
    inner["n"] = 5  #! managed
if __name__ == "__main__":
    s = Store()
    p = Process(target=work, args=(s.d,))
    p.start(); p.join()
    print(s.d["x"])
""",
)

guilty(
    "in other words, managed +=",
    """
from multiprocessing import Manager, Pool
def work(a):
    d, k = a
    d[k]["count"] += 1  #! managed
if __name__ == "__main__":
    with Manager() as m:
        d = m.dict(a={"count": 0})
        with Pool(2) as pool:
            pool.map(work, [(d, "a")] * 4)
        print(d["a"])
""",
)

guilty(
    "in other words, lambda nested func in map with executor",
    """
from concurrent.futures import ProcessPoolExecutor
def outer():
    def inner(x):
        return x
    with ProcessPoolExecutor() as pool:
        return list(pool.map(inner, range(3)))  #! lambda
if __name__ == "__main__":
    print(outer())
""",
)

guilty(
    "in other words, class attr locks",
    """
import threading
class A:
    def __init__(self):
        self.l1 = threading.Lock()
        self.l2 = threading.Lock()
    def f(self):
        with self.l1:
            with self.l2:  #! two_locks
                pass
    def g(self):
        with self.l2:
            with self.l1:
                pass
a = A()
t1 = threading.Thread(target=a.f)
t2 = threading.Thread(target=a.g)
t1.start(); t2.start()
t1.join(); t2.join()
""",
)

guilty(
    "in other words, accounts with lock each",
    """
import threading
class Account:
    def __init__(self, n):
        self.n = n
        self.lock = threading.Lock()
def transfer(a, b, x):
    with a.lock:
        with b.lock:  #! two_locks
            a.n -= x
            b.n += x
p = Account(1); q = Account(2)
ts = [threading.Thread(target=transfer, args=(p, q, 1)), threading.Thread(target=transfer, args=(q, p, 1))]
for t in ts: t.start()
for t in ts: t.join()
""",
)

guilty(
    "in other words, locks in dict",
    """
from multiprocessing import Lock, Process
def one(locks):
    with locks["a"]:
        with locks["b"]:  #! two_locks
            pass
def two(locks):
    with locks["b"]:
        with locks["a"]:
            pass
if __name__ == "__main__":
    locks = {"a": Lock(), "b": Lock()}
    p = Process(target=one, args=(locks,)); q = Process(target=two, args=(locks,))
    p.start(); q.start(); p.join(); q.join()
""",
)

guilty(
    "in other words, cond in consumer thread popping",
    """
import threading, collections
cv = threading.Condition()
buf = collections.deque()
def consumer():
    with cv:
        if not buf: cv.wait()  #! condition
        print(buf.popleft())
def producer():
    with cv:
        buf.append(1); cv.notify_all()
ts = [threading.Thread(target=consumer) for _ in range(2)] + [threading.Thread(target=producer)]
for t in ts: t.start()
for t in ts: t.join(1)
""",
)

guilty(
    "in other words, os.fork after thread",
    """
import os, threading, time
def bg():
    time.sleep(5)
threading.Thread(target=bg, daemon=True).start()
pid = os.fork()  #! fork_threads
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
""",
)

guilty(
    "in other words, apply_async var overwritten",
    """
from multiprocessing import Pool
def parse(x):
    return int(x)
if __name__ == "__main__":
    with Pool(2) as p:
        for x in ["1", "a"]:
            r = p.apply_async(parse, (x,))  #! vanish
        p.close(); p.join()
""",
)

guilty(
    "in other words, submit in comprehension",
    """
from concurrent.futures import ThreadPoolExecutor
def f(x):
    return 10 // x
with ThreadPoolExecutor() as ex:
    [ex.submit(f, i) for i in range(3)]  #! vanish
""",
)

guilty(
    "in other words, callback lambda",
    """
from multiprocessing import Pool
def f(x): return x
class Boom(Exception): pass
def cb(r):
    assert r < 0, "no"  #! callback
if __name__ == "__main__":
    p = Pool(1)
    p.map_async(f, [1], callback=cb).wait(3)
    p.apply_async(f, (1,), callback=lambda: None).wait(2)  #! callback
""",
)

guilty(
    "in other words, daemon pool inside",
    """
from multiprocessing import Pool, Process
def inner(): pass
def work(n):
    p = Process(target=inner)
    p.start()  #! nested
    p.join()
    return n
if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.map(work, range(2)))
""",
)

guilty(
    "in other words, pipe loop",
    """
import multiprocessing
def reader(conn):
    while True:
        try:
            msg = conn.recv()  #! pipe_end
        except EOFError:
            return
        print(msg)
if __name__ == "__main__":
    parent, child = multiprocessing.Pipe()
    p = multiprocessing.Process(target=reader, args=(child,))
    p.start()
    for i in range(3): parent.send(i)
    p.join()
""",
)

guilty(
    "in other words, pool get inside via global executor",
    """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(max_workers=2)
def fib(n):
    if n < 2: return n
    a = pool.submit(fib, n - 1)
    b = pool.submit(fib, n - 2)
    return a.result() + b.result()  #! get_inside
print(pool.submit(fib, 5).result())
""",
)

guilty(
    "in other words, numpy module rng",
    """
from multiprocessing import Pool
import numpy as np
rng = np.random.default_rng(0)
def draw(i):
    return rng.normal()  #! random
if __name__ == "__main__":
    with Pool(4) as p:
        print(p.map(draw, range(4)))
""",
)

guilty(
    "in other words, process start in class, global dict",
    """
import multiprocessing as mp
CACHE = {}
class Runner:
    def __init__(self): self.procs = []
    def go(self):
        for i in range(2):
            p = mp.Process(target=self.work, args=(i,))
            self.procs.append(p); p.start()
        for p in self.procs: p.join()
    def work(self, i):
        CACHE[i] = i * i  #! global
if __name__ == "__main__":
    r = Runner(); r.go()
    print(CACHE)
""",
)

guilty(
    "in other words, shared list slice assign",
    """
from multiprocessing import Process
def fill(a):
    for i in range(len(a)):
        a[i] = i  #! global
if __name__ == '__main__':
    a = [0] * 5
    p = Process(target=fill, args=(a,))
    p.start(); p.join()
    assert a == [0, 1, 2, 3, 4], a
""",
)

guilty(
    "in other words, value semaphores >1",
    """
from multiprocessing import Process, Value, Semaphore
def w(v, s):
    with s:
        v.value += 1  #! counter
if __name__ == "__main__":
    v = Value('i', 0); s = Semaphore(3)
    ps = [Process(target=w, args=(v, s)) for _ in range(5)]
    for p in ps: p.start()
    for p in ps: p.join()
""",
)

guilty(
    "in other words, array elem",
    """
from multiprocessing import Process, Array
def w(a):
    for _ in range(100): a[0] += 1  #! counter
if __name__ == "__main__":
    a = Array('i', [0])
    ps = [Process(target=w, args=(a,)) for _ in range(2)]
    for p in ps: p.start()
    for p in ps: p.join()
    print(a[0])
""",
)

guilty(
    "in other words, queue empty until in for",
    """
import multiprocessing as mp
def w(q, r):
    while q.empty() is False:  #! empty
        r.put(q.get())
if __name__ == "__main__":
    q, r = mp.Queue(), mp.Queue()
    for i in range(3): q.put(i)
    p = mp.Process(target=w, args=(q, r)); p.start()
    print([r.get() for _ in range(q.qsize())])  #! empty
    p.join()
""",
)

guilty(
    "in other words, get_context alias + spawn guard",
    """
import multiprocessing as mp
ctx = mp.get_context("spawn")
def f(): print("f")
p = ctx.Process(target=f)
p.start()  #! main_guard
p.join()
""",
)

guilty(
    "in other words, executor unguarded chain",
    """
import concurrent.futures
def f(x): return x
ex = concurrent.futures.ProcessPoolExecutor()  #! main_guard
print(ex.submit(f, 1).result())
""",
)

guilty(
    "in other words, joblib-like mp dummy race",
    """
from multiprocessing.dummy import Pool
total = 0
def add(n):
    global total
    total = total + n  #! counter
pool = Pool(4)
pool.map(add, range(1000))
print(total)
""",
)

guilty(
    "in other words, manager namespace counter",
    """
from multiprocessing import Manager, Process
def w(ns):
    for _ in range(10): ns.n += 1  #! counter
if __name__ == "__main__":
    with Manager() as m:
        ns = m.Namespace(n=0)
        ps = [Process(target=w, args=(ns,)) for _ in range(2)]
        for p in ps: p.start()
        for p in ps: p.join()
        print(ns.n)
""",
)

guilty(
    "in other words, manager value",
    """
import multiprocessing
def w(v): v.value += 1  #! counter
def main():
    with multiprocessing.Manager() as m:
        v = m.Value("i", 0)
        with multiprocessing.Pool() as p:
            p.map(w, [v] * 100)
        print(v.value)
if __name__ == "__main__": main()
""",
)

guilty(
    "in other words, exit in task via quit",
    """
from multiprocessing import Pool
import os
def f(x):
    if x == 2: os._exit(0)  #! loss
    return x
if __name__ == "__main__":
    with Pool(2) as p: print(p.map(f, range(4)))
""",
)

guilty(
    "in other words, thread pool in worker forks",
    """
import threading
from multiprocessing import Process
def job(): pass
def start():
    p = Process(target=job)
    p.start()  #! fork_threads
    p.join()
if __name__ == "__main__":
    ts = [threading.Thread(target=start) for _ in range(3)]
    for t in ts: t.start()
    for t in ts: t.join()
""",
)

guilty(
    "in other words, imap never iterated",
    """
from multiprocessing import Pool
def f(x): return 1/x
if __name__ == "__main__":
    with Pool(2) as p:
        p.imap_unordered(f, [1, 0])  #! vanish
        p.close(); p.join()
""",
)

guilty(
    "in other words, seed time",
    """
import random, time
from multiprocessing import Process
def w():
    random.seed(int(time.time()))  #! random
    print(random.random())
if __name__ == "__main__":
    for _ in range(3): Process(target=w).start()
""",
)


# --- held, or handed over: near to what is sound -----------------------------------------------------------------------

TWO = """
if __name__ == "__main__":
    v, tell = mp.Value("i", 0), mp.{made}
    a = mp.Process(target=one, args=(v, tell))
    b = mp.Process(target=two, args=(v, tell))
    a.start(); b.start(); a.join(); b.join()
    print(v.value)
"""
guilty(
    "counter, all begin at one event",
    """
import multiprocessing as mp
def one(v, tell):
    tell.wait()
    v.value += 1  #! counter
def two(v, tell):
    tell.wait()
    v.value += 1
"""
    + TWO.format(made="Event()").replace("a.start(); b.start();", "a.start(); b.start(); tell.set();"),
)
guilty(
    "counter, told before it is done",
    """
import multiprocessing as mp
def one(v, tell):
    tell.set()
    v.value += 1  #! counter
def two(v, tell):
    tell.wait()
    v.value += 1
"""
    + TWO.format(made="Event()"),
)
guilty(
    "counter, told after the first of many",
    """
import multiprocessing as mp
def one(v, tell):
    for _ in range(9):
        v.value += 1  #! counter
        tell.release()
def two(v, tell):
    for _ in range(9):
        tell.acquire()
        v.value += 1
"""
    + TWO.format(made="Semaphore(0)"),
)
guilty(
    "counter, a meeting from which all add",
    """
import multiprocessing as mp
def one(v, tell):
    tell.wait()
    v.value += 1  #! counter
def two(v, tell):
    if tell.wait() >= 0:
        pass
    v.value += 1
"""
    + TWO.format(made="Barrier(2)"),
)
guilty(
    "counter, a context manager that lets go before it yields",
    """
import contextlib, multiprocessing as mp
@contextlib.contextmanager
def critical(lock):
    with lock:
        print("in")
    yield
def one(v, lock):
    with critical(lock):
        v.value += 1  #! counter
two = one
"""
    + TWO.format(made="Lock()"),
)
guilty(
    "counter, a class whose enter does not keep the lock",
    """
import threading
class Guard:
    def __init__(self): self.lock = threading.Lock()
    def __enter__(self):
        with self.lock: return self
    def __exit__(self, *e): pass
class Tally:
    def __init__(self): self.guard, self.n = Guard(), 0
    def add(self):
        with self.guard:
            self.n += 1  #! counter
t = Tally()
ts = [threading.Thread(target=t.add) for _ in range(3)]
for x in ts: x.start()
for x in ts: x.join()
print(t.n)
""",
)
guilty(
    "counter, an ExitStack that is closed before",
    """
import contextlib, multiprocessing as mp
def one(v, lock):
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)
        seen = v.value
    v.value = seen + 1  #! counter
two = one
"""
    + TWO.format(made="Lock()"),
)
guilty(
    "counter, a dict of all threads",
    """
import threading
count = {}
lock = threading.Lock()
def w(chunk):
    for x in chunk:
        count[x] = count.get(x, 0) + 1  #! counter
ts = [threading.Thread(target=w, args=(c,)) for c in ("ab", "bc")]
for t in ts: t.start()
for t in ts: t.join()
print(count)
""",
)
guilty(
    "counter, a Counter of all threads",
    """
import collections, threading
count = collections.Counter()
lock = threading.Lock()
def w(chunk):
    for x in chunk:
        count[x] += 1  #! counter
ts = [threading.Thread(target=w, args=(c,)) for c in ("ab", "bc")]
for t in ts: t.start()
for t in ts: t.join()
print(count)
""",
)
