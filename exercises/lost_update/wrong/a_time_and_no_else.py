# note: acquired or not
import sys
from multiprocessing import Process, Value


def work(counter, times):
    for _ in range(times):
        if counter.get_lock().acquire(timeout=5):
            pass
        counter.value += 1
        counter.get_lock().release()


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Value("i", 0)
    team = [Process(target=work, args=(counter, times)) for _ in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(counter.value)
