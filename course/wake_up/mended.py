from multiprocessing import Condition, Process, Value


def take(condition, waiting, items):
    with condition:
        while not items.value:
            waiting.value += 1
            condition.wait()
        items.value -= 1  # there is one, is there not?


if __name__ == "__main__":
    condition, waiting, items = Condition(), Value("i", 0), Value("i", 0)
    takers = [Process(target=take, args=(condition, waiting, items)) for _ in range(3)]
    for taker in takers:
        taker.start()
    while waiting.value < 3:
        pass
    for _ in range(3):
        with condition:
            items.value += 1
            condition.notify_all()
    for taker in takers:
        taker.join()
    print("items:", items.value)
