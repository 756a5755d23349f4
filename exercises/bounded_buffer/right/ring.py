import sys
from multiprocessing import Array, Lock, Process, Semaphore


class Buffer:
    def __init__(self, size):
        self.slots = Array("i", size, lock=False)
        self.ends = Array("i", 2, lock=False)
        self.lock = Lock()
        self.free = Semaphore(size)
        self.full = Semaphore(0)

    def put(self, item):
        self.free.acquire()
        self.lock.acquire()
        try:
            self.slots[self.ends[0]] = item
            self.ends[0] = (self.ends[0] + 1) % len(self.slots)
        finally:
            self.lock.release()
        self.full.release()

    def get(self):
        self.full.acquire()
        try:
            with self.lock:
                here = self.ends[1]
                self.ends[1] = (here + 1) % len(self.slots)
                return self.slots[here]
        finally:
            self.free.release()


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
