# note: less work
import sys
from multiprocessing import Process, Value


def work(counter, times):
    mine = 0
    for _ in range(times):
        mine += 1
    with counter.get_lock():
        counter.value += mine


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    team = [Process(target=work, args=(counter, times)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
