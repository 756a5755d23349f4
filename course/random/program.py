import random
from multiprocessing import Process, Queue

random.seed(42)  # so that the experiment can be repeated


def throw(results):
    results.put(random.randrange(1_000_000))


if __name__ == "__main__":
    results = Queue()
    for _ in range(4):
        Process(target=throw, args=(results,)).start()
    print("different numbers of four:", len({results.get() for _ in range(4)}))
