from multiprocessing import Condition, Process, Value


def take(condition, waiting, items):
    with condition:
        if not items.value:
            waiting.value += 1
            condition.wait()
        items.value -= 1  # there is one, is there not?


if __name__ == "__main__":
    condition, waiting, items = Condition(), Value("i", 0), Value("i", 0)
    takers = [Process(target=take, args=(condition, waiting, items)) for _ in range(1)]
    for taker in takers:
        taker.start()
    while waiting.value < 1:
        pass
    with condition:
        items.value += 1
        condition.notify()  # one item, and one is woken;
        items.value -= 1  # but who has the lock is quicker
    for taker in takers:
        taker.join()
    print("items:", items.value)
