# note: ready or not
import sys
from multiprocessing import Pool


def task(number):
    if number % 3 == 0:
        raise ValueError(f"{number} cannot be done")
    return number * number


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    with Pool(2) as pool:
        calls = [pool.apply_async(task, (number,)) for number in numbers]
        print(*[call.get() if call.ready() and call.successful() else "failed" for call in calls])
