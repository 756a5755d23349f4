import sys
from multiprocessing import Process, Queue


def work(results, first, count):
    for number in range(first, first + count):
        results.put(number * number)


def gather(results, many, answer):
    answer.put(sum(results.get() for _ in range(many)))


if __name__ == "__main__":
    workers, count = int(sys.argv[1]), int(sys.argv[2])
    results, answer = Queue(1), Queue()
    team = [Process(target=work, args=(results, number * count, count)) for number in range(workers)]
    reader = Process(target=gather, args=(results, workers * count, answer))
    for one in [*team, reader]:
        one.start()
    for one in team:
        one.join()
    print(answer.get())
    reader.join()
