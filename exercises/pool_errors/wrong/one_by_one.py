# note: one by one
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
            try:
                results.append(pool.apply(task, (number,)))
            except ValueError:
                results.append("failed")
    print(*results)
