import os
import random
from multiprocessing import Process, Queue


def throw(results):
    mine = random.Random(os.getpid())  # each process has an id of its own
    results.put(mine.randrange(1_000_000))


if __name__ == "__main__":
    results = Queue()
    for _ in range(4):
        Process(target=throw, args=(results,)).start()
    print("different numbers of four:", len({results.get() for _ in range(4)}))
