# note: at the top of the file
import sys
from multiprocessing import Lock, Process, Value

lock = Lock()


def work(counter, times):
    for _ in range(times):
        with lock:
            counter.value += 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    team = [Process(target=work, args=(counter, times)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
