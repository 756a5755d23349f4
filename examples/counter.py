"""Ten processes add to one counter without a lock: 500 at most, and often fewer.

``counter.value += 1`` reads, adds and writes; what another process wrote in between is overwritten.
"""

import time
from multiprocessing import Process, Value


def count(counter):
    """Add one, fifty times."""
    for _ in range(50):
        time.sleep(0.01)
        counter.value += 1


def main():
    """Print what ten counting processes have come to."""
    counter = Value("i", 0)
    processes = [Process(target=count, args=(counter,)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(counter.value)


if __name__ == "__main__":
    main()
