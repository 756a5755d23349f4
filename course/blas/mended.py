import hashlib
import os
import time
from multiprocessing import Pool

DATA = bytes(10_000_000)


def multiply(_):  # the library has been told to use one thread
    for _ in range(os.cpu_count() * 4):
        hashlib.sha256(DATA)


if __name__ == "__main__":
    with Pool(os.cpu_count()) as pool:  # workers times threads are as many as there are cores
        pool.map(multiply, range(os.cpu_count()), 1)
        begun = time.perf_counter()
        list(map(multiply, range(8)))
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        pool.map(multiply, range(8), 1)
        took = time.perf_counter() - begun
        print("of the cores that there are, used:", round(alone / took / os.cpu_count(), 2))
