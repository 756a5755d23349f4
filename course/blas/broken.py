import hashlib
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

DATA = bytes(10_000_000)
CORES = multiprocessing.cpu_count()


def multiply(threads):
    with ThreadPoolExecutor(threads) as team:
        list(team.map(hashlib.sha256, [DATA] * CORES * 8))


if __name__ == "__main__":
    multiply(CORES)  # the machine is awake
    begun = time.perf_counter()
    multiply(CORES)
    one_each = time.perf_counter() - begun
    begun = time.perf_counter()
    multiply(8 * CORES)
    print("eight threads a core, times as fast as one:", round(one_each / (time.perf_counter() - begun), 1))
