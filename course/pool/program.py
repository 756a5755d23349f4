import time
from multiprocessing import Pool


def nap(seconds):
    time.sleep(seconds)


if __name__ == "__main__":
    with Pool(3) as pool:
        pool.map(nap, [0.5] * 3, 1)  # until all three have started
        begun = time.perf_counter()
        for _ in range(6):
            pool.apply(nap, (0.5,))
        print("seconds, six times apply:", round(time.perf_counter() - begun, 1))
        begun = time.perf_counter()
        pool.map(nap, [0.5] * 6, 1)
        print("seconds, one map of six:", round(time.perf_counter() - begun, 1))
