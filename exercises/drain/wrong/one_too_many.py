# note: one too many
import sys
from multiprocessing import Process, Queue


def work(results, first, count):
    for number in range(first, first + count):
        results.put(number * number)


if __name__ == "__main__":
    workers, count = int(sys.argv[1]), int(sys.argv[2])
    results = Queue(1)
    team = [Process(target=work, args=(results, number * count, count)) for number in range(workers)]
    for one in team:
        one.start()
    total = sum(results.get() for _ in range(workers * count + 1))
    for one in team:
        one.join()
    print(total)
