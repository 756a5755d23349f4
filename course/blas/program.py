import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pool

DATA = bytes(10_000_000)


def multiply(_):  # such as a library's: without the GIL, on as many threads as there are cores
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(hashlib.sha256, [DATA] * os.cpu_count() * 4))


if __name__ == "__main__":
    with Pool(4) as pool:
        pool.map(multiply, range(4), 1)  # they have started
        begun = time.perf_counter()
        list(map(multiply, range(8)))
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        pool.map(multiply, range(8), 1)
        print("four workers, times as fast as none:", round(alone / (time.perf_counter() - begun), 1))
