# note: ready made
import sys
from multiprocessing import Array, Process, Queue


class Buffer:
    def __init__(self, size):
        self.queue = Queue(size)

    def put(self, item):
        self.queue.put(item)

    def get(self):
        return self.queue.get()


def produce(buffer, first, count):
    for item in range(first, first + count):
        buffer.put(item)


def consume(buffer, taken, place, count):
    for at in range(place, place + count):
        taken[at] = buffer.get()


if __name__ == "__main__":
    pairs, size, count = (int(text) for text in sys.argv[1:])
    buffer = Buffer(size)
    taken = Array("i", pairs * count)
    team = [Process(target=produce, args=(buffer, 1 + pair * count, count)) for pair in range(pairs)]
    team += [Process(target=consume, args=(buffer, taken, pair * count, count)) for pair in range(pairs)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(*sorted(taken[:]))
