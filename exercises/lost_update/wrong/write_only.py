# note: only the write
import sys
from multiprocessing import Lock, Process, Value


def work(counter, times, lock):
    for _ in range(times):
        seen = counter.value
        with lock:
            counter.value = seen + 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter, lock = Value("i", 0), Lock()
    team = [Process(target=work, args=(counter, times, lock)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
