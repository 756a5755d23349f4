import sys
from multiprocessing import Array, Process, Queue


def produce(queue, first, count):
    for item in range(first, first + count):
        queue.put(item)


def consume(queue, taken):
    while True:
        item = queue.get()
        if item is None:
            queue.put(None)
            return
        with taken.get_lock():
            taken[item] += 1


if __name__ == "__main__":
    producers, consumers, count = (int(text) for text in sys.argv[1:])
    queue = Queue()
    taken = Array("i", producers * count)
    makers = [Process(target=produce, args=(queue, number * count, count)) for number in range(producers)]
    takers = [Process(target=consume, args=(queue, taken)) for _ in range(consumers)]
    for one in makers + takers:
        one.start()
    for one in makers:
        one.join()
    queue.put(None)
    for one in takers:
        one.join()
    print(*taken[:])
