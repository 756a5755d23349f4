import threading
import time
from multiprocessing import TimeoutError, get_context

lock = threading.Lock()


def work(number):
    with lock:
        return number


if __name__ == "__main__":
    # made while there is one thread; but who has done one call is replaced, and the next one is forked by the pool's thread
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        with lock:
            answers = pool.map_async(work, range(3), 1)
            time.sleep(2)
        try:
            print("answered:", len(answers.get(8)))
        except TimeoutError:
            print("answered:", "never")
