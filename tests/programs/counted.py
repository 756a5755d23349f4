"""Calls that end well, badly and with their worker, and a wait for a lock: ``counted.py MARK``; then "up" is printed."""

import multiprocessing
import os
import signal
import sys
import time


def call(n):
    if n == 3:
        raise ValueError(n)
    return n


def fatal(mark):
    """Take the worker along, once."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def waiter(lock, up):
    up.release()
    with lock:
        pass


def main(mark):
    lock, up = multiprocessing.Lock(), multiprocessing.Semaphore(0)
    with lock:
        waiting = multiprocessing.Process(target=waiter, args=(lock, up))
        waiting.start()
        up.acquire()
        time.sleep(0.3)  # it waits that long, at the least
    waiting.join()
    pool = multiprocessing.Pool(2)
    for result in [pool.apply_async(call, [n]) for n in range(10)]:
        result.wait()
    pool.apply(fatal, [mark])
    print("up", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main(sys.argv[1])
