# note: nobody started
import sys
from multiprocessing import Process, Queue


def work(results, first, count):
    for number in range(first, first + count):
        results.put(number * number)


if __name__ == "__main__":
    workers, count = int(sys.argv[1]), int(sys.argv[2])
    print(sum(number * number for number in range(workers * count)))
