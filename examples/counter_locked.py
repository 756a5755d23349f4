"""Ten processes add to one counter under a lock: 500, always."""

import time
from multiprocessing import Lock, Process, Value


def count(counter, lock):
    """Add one, fifty times; reading, adding and writing happen while nobody else may."""
    for _ in range(50):
        time.sleep(0.01)
        with lock:
            counter.value += 1


def main():
    """Print what ten counting processes have come to."""
    counter, lock = Value("i", 0), Lock()
    processes = [Process(target=count, args=(counter, lock)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(counter.value)


if __name__ == "__main__":
    main()
