import time
from multiprocessing import Pool


def wait(_):
    time.sleep(0.5)  # who waits gives the GIL away


if __name__ == "__main__":
    with Pool(2) as pool:
        pool.map(wait, range(2), 1)
        begun = time.perf_counter()
        pool.apply(wait, (0,))
        pool.apply(wait, (0,))
        one_by_one = time.perf_counter() - begun
        begun = time.perf_counter()
        pool.map(wait, range(2), 1)
        together = time.perf_counter() - begun
    print("speed-up by two workers:", round(one_by_one / together, 2))
