import time
from multiprocessing import Pool


def square(number):
    return number * number


if __name__ == "__main__":
    numbers = range(5000)
    begun = time.perf_counter()
    list(map(square, numbers))
    loop = time.perf_counter() - begun
    with Pool(4) as pool:
        pool.map(square, range(4), 1)  # they have started
        begun = time.perf_counter()
        pool.map(square, numbers, 1)
        took = time.perf_counter() - begun
    print("the pool took, times as long as the loop:", round(took / loop, 1))
