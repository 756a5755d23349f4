import sys
from multiprocessing import Process, Queue, Value


def work(counter, times, tokens):
    for _ in range(times):
        token = tokens.get()
        counter.value += 1
        tokens.put(token)


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    tokens = Queue()
    tokens.put(1)
    team = [Process(target=work, args=(counter, times, tokens)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
