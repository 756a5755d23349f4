# note: nobody puts
import sys
from multiprocessing import Array, Process, Queue


def produce(queue, first, count):
    for item in range(first, first + count):
        queue.put(item)
    queue.put(None)


def consume(queue, taken):
    while True:
        item = queue.get()
        if item is None:
            return
        with taken.get_lock():
            taken[item] += 1


if __name__ == "__main__":
    producers, consumers, count = (int(text) for text in sys.argv[1:])
    print(*[1] * (producers * count))
