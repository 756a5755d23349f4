# note: two are let in
import sys
from multiprocessing import Process, Semaphore, Value


def work(counter, times, sem):
    for _ in range(times):
        with sem:
            counter.value += 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    sem = Semaphore(2)
    team = [Process(target=work, args=(counter, times, sem)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
