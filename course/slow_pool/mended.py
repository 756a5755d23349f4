import time
from multiprocessing import Pool


def fetch(number):
    time.sleep(0.02)  # what takes its time: a page, a file, a long computation
    return number


if __name__ == "__main__":
    numbers = range(100)
    begun = time.perf_counter()
    list(map(fetch, numbers))
    loop = time.perf_counter() - begun
    with Pool(4) as pool:
        pool.map(fetch, range(4), 1)
        begun = time.perf_counter()
        pool.map(fetch, numbers)
        took = time.perf_counter() - begun
    print("the pool took, times as long as the loop:", round(took / loop, 2))
