"""Processes that do what their names say, until they are killed: ``stuck.py NAME...``; "up" is printed when they do."""

import multiprocessing
import sys
import threading
import time


def left(a, b, both, up):
    with a:
        both.wait()
        with b:
            pass


def right(a, b, both, up):
    with b:
        both.wait()
        with a:
            pass


def holder(a, b, both, up):
    with a:
        up.release()
        time.sleep(1000)


def waiter(a, b, both, up):
    up.release()
    with a:
        pass


def twofold(a, b, both, up):
    """One thread waits for a lock that another thread of the same process holds, and will let go."""
    kept = threading.Event()
    threading.Thread(target=keep, args=(a, kept), daemon=True).start()
    kept.wait()
    up.release()
    with a:
        pass


def keep(a, kept):
    with a:
        kept.set()
        time.sleep(1000)


def twice(a, b, both, up):
    with a:
        up.release()
        with a:
            pass


def cruncher(a, b, both, up):
    up.release()
    return sum(range(10**12))


def sleeper(a, b, both, up):
    up.release()
    time.sleep(1000)


def sender(queue, up):
    """Put what nobody reads, until there is no room."""
    up.release()
    while True:
        queue.put(b"x" * 100_000)


def nap(seconds):
    time.sleep(seconds)


def main(names):
    a, b, both, up = (
        multiprocessing.Lock(),
        multiprocessing.Lock(),
        multiprocessing.Barrier(2),
        multiprocessing.Semaphore(0),
    )
    targets = [globals()[name] for name in names if name not in ("pool", "queue", "full")]
    processes = [
        multiprocessing.Process(target=f, args=(a, b, both, up), name=f.__name__, daemon=True) for f in targets
    ]
    for process in processes:
        process.start()
        if process.name not in ("left", "right"):
            up.acquire()
    if "full" in names:
        filled = multiprocessing.SimpleQueue()
        multiprocessing.Process(target=sender, args=(filled, up), name="sender", daemon=True).start()
        up.acquire()
    if "queue" in names:
        queue = multiprocessing.Queue()
        for i in range(5):
            queue.put(i)
    if "pool" in names:
        pool = multiprocessing.Pool(2)
        pool.map_async(nap, [1000] * 6, chunksize=1)
    print("up", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main(sys.argv[1:])
