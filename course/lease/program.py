import sys
from multiprocessing import Lock, Process


def work(lock):
    lock.acquire()
    sys.exit(1)  # it fails, with the lock in its hands


if __name__ == "__main__":
    lock = Lock()
    worker = Process(target=work, args=(lock,))
    worker.start()
    worker.join()
    print("the lock is free again:", "yes" if lock.acquire(timeout=5) else "no")
