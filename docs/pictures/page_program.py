"""What runs on the fleet in the picture of the page: a deadlock, a lock that three want, a pool, a queue that grows."""

import multiprocessing
import random
import time


def left(a, b, both):
    """Take one lock and want the other."""
    with a:
        both.wait()
        with b:
            pass


def right(a, b, both):
    """The same the other way round."""
    with b:
        both.wait()
        with a:
            pass


def write(disk):
    """Hold a lock for a while, again and again."""
    while True:
        with disk:
            time.sleep(2.5)


def read(queue):
    """Take what is put there, more slowly than it comes."""
    while True:
        queue.get()
        time.sleep(0.9)


def count(n):
    """Compute in C, with the GIL held."""
    return sum(range(n))


def resize(n):
    """A call of a pool."""
    time.sleep(random.uniform(0.2, 3))
    return n


def main():
    """Start them all, and go on until killed."""
    a, b, disk = (multiprocessing.Lock() for _ in range(3))
    both, queue = multiprocessing.Barrier(2), multiprocessing.Queue()
    work = [
        (left, (a, b, both), "left"),
        (right, (a, b, both), "right"),
        (count, (10**12,), "count"),
        (read, (queue,), "read"),
    ]
    work += [(write, (disk,), f"writer-{i}") for i in (1, 2, 3)]
    for target, args, name in work:
        multiprocessing.Process(target=target, args=args, name=name, daemon=True).start()
    with multiprocessing.Pool(4) as pool:
        pool.map_async(resize, range(3000), chunksize=1)
        while True:
            queue.put("item")
            time.sleep(0.5)


if __name__ == "__main__":
    main()
