import sys
from multiprocessing import Lock, Manager, Process, Value


def work(counter, lock, times):
    for _ in range(times):
        with lock:
            counter.value += 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    with Manager() as manager:
        counter, lock = manager.Value("i", 0), manager.Lock()
        team = [Process(target=work, args=(counter, lock, times)) for _ in range(workers)]
        for one in team:
            one.start()
        for one in team:
            one.join()
        print(counter.value)
