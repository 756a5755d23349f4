# note: nobody started
import sys


def work(results, place, number):
    results[place] = number * number


if __name__ == "__main__":
    print(sum(int(text) ** 2 for text in sys.argv[1:]))
