# note: a callback
import sys
from multiprocessing import Pool


def task(number):
    if number % 3 == 0:
        raise ValueError(f"{number} cannot be done")
    return number * number


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    results = []
    with Pool(2) as pool:
        for number in numbers:
            pool.apply_async(task, (number,), callback=results.append)
        pool.close()
        pool.join()
    print(*results)
