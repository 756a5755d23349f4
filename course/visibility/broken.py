import sys
import time
from multiprocessing import Process

TIMEOUT = 6  # longer than the task


def work(attempt):
    if attempt == 1:
        sys.exit(1)  # the worker dies at once, and says nothing


if __name__ == "__main__":
    begun = time.monotonic()
    workers = [Process(target=work, args=(attempt,)) for attempt in (1, 2)]
    workers[0].start()
    time.sleep(TIMEOUT)  # all that is known is that it has not said that it is done
    workers[1].start()
    for worker in workers:
        worker.join()
    print("seconds until it was done:", round(time.monotonic() - begun, 1))
