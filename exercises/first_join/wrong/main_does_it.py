# note: no work
import sys
from multiprocessing import Array, Process


def work(results, place, number):
    results[place] = number * number


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    results = Array("i", len(numbers))
    for place, number in enumerate(numbers):
        work(results, place, number)
    print(sum(results[:]))
