# note: a lock for each process
import sys
from multiprocessing import Lock, Process, Value


def work(counter, times, lock):
    for _ in range(times):
        with lock:
            seen = counter.value
            counter.value = seen + 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    team = [Process(target=work, args=(counter, times, Lock())) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
