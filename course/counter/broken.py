import time
from multiprocessing import Barrier, Process, Value


def count(counter, gate):
    gate.wait()
    for _ in range(50):
        with counter.get_lock():
            seen = counter.value
        time.sleep(0.001)
        with counter.get_lock():
            counter.value = seen + 1


if __name__ == "__main__":
    counter, gate = Value("i", 0), Barrier(4)
    workers = [Process(target=count, args=(counter, gate)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("counted:", counter.value)
