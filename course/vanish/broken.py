import os
from multiprocessing import Pool, TimeoutError


def invert(number):
    return 1 / number


def note(result):
    raise ValueError(result)  # a mistake in the callback


if __name__ == "__main__":
    pool = Pool(2)
    pool.apply_async(invert, (1,), callback=note).wait(3)
    try:
        pool.apply_async(invert, (2,)).get(5)
        print("the next call is answered:", "yes", flush=True)
    except TimeoutError:
        print("the next call is answered:", "no", flush=True)
    os._exit(0)  # such a pool cannot be ended any more
