import os
import signal
from multiprocessing import Pool, TimeoutError


def work(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # whoever gets this call
    return number


if __name__ == "__main__":
    with Pool(2) as pool:
        answers = pool.map_async(work, range(6), 1)
        try:
            print("answered:", len(answers.get(10)))
        except TimeoutError:
            print("answered:", "never")
        except Exception as exc:
            print("answered:", type(exc).__name__)
