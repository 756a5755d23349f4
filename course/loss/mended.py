import os
from multiprocessing import Pool, TimeoutError, Value


def use(value):
    global deaths
    deaths = value


def work(number):
    if number == 3 and deaths.value == 0:
        deaths.value = 1
        os.kill(os.getpid(), 9)
    return number


if __name__ == "__main__":
    with Pool(2, use, [Value("i", 0)]) as pool:
        calls, answers = [pool.apply_async(work, (number,)) for number in range(6)], []
        for number, call in enumerate(calls):
            try:
                answers.append(call.get(8))
            except TimeoutError:
                answers.append(pool.apply(work, (number,)))  # asked again
    print("answered:", len(answers))
