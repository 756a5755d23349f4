import random
from multiprocessing import Process, Queue


def throw(results, number):
    mine = random.Random(f"42, worker {number}")
    results.put(mine.randrange(1_000_000))


if __name__ == "__main__":
    results = Queue()
    for number in range(4):
        Process(target=throw, args=(results, number)).start()
    print("different numbers of four:", len({results.get() for _ in range(4)}))
