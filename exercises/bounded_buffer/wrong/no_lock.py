# note: no lock
import sys
from multiprocessing import Array, Process, Semaphore


class Buffer:
    def __init__(self, size):
        self.slots = Array("i", size, lock=False)
        self.ends = Array("i", 2, lock=False)
        self.free = Semaphore(size)
        self.full = Semaphore(0)

    def put(self, item):
        self.free.acquire()
        at = self.ends[0]
        self.slots[at % len(self.slots)] = item
        self.ends[0] = at + 1
        self.full.release()

    def get(self):
        self.full.acquire()
        at = self.ends[1]
        item = self.slots[at % len(self.slots)]
        self.ends[1] = at + 1
        self.free.release()
        return item


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
