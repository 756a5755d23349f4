# note: an event
import sys
from multiprocessing import Event, Process, Value


def work(counter, times, free):
    for _ in range(times):
        free.wait()
        free.clear()
        counter.value += 1
        free.set()


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    free = Event()
    free.set()
    team = [Process(target=work, args=(counter, times, free)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
