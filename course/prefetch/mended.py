import time
from multiprocessing import Pool

SECONDS = [1, 1, 1, 1, 0, 0, 0, 0]  # the long ones come first


def nap(seconds):
    time.sleep(seconds)


if __name__ == "__main__":
    with Pool(2) as pool:
        pool.map(nap, [0.2] * 2, 1)  # all workers are there
        begun = time.monotonic()
        pool.map(nap, SECONDS, 1)  # who has nothing to do takes one
        print("seconds:", round(time.monotonic() - begun, 1))
