# note: in any order
import sys
from multiprocessing import Pool


def task(number):
    if number % 3 == 0:
        raise ValueError(f"{number} cannot be done")
    return number * number


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    with Pool(2) as pool:
        found, results = [], pool.imap_unordered(task, numbers)
        for _ in numbers:
            try:
                found.append(next(results))
            except ValueError:
                found.append("failed")
        print(*found)
