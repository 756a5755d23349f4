# note: past the lock
import sys
from multiprocessing import Process, Value


def work(counter, times):
    for n in range(times):
        if n < 4:
            with counter.get_lock():
                seen = counter.value
                counter.value = seen + 1
        else:
            seen = counter.value
            counter.value = seen + 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    team = [Process(target=work, args=(counter, times)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
