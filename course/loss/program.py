import os
import signal
from multiprocessing import Pool, TimeoutError, Value


def use(value):
    global deaths
    deaths = value


def work(number):
    if number == 3 and deaths.value == 0:
        deaths.value = 1
        os.kill(os.getpid(), signal.SIGKILL)
    return number


if __name__ == "__main__":
    with Pool(2, use, [Value("i", 0)]) as pool:
        answers = pool.map_async(work, range(6), 1)
        try:
            print("answered:", len(answers.get(10)))
        except TimeoutError:
            print("answered:", "never")
