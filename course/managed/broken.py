import time
from multiprocessing import Barrier, Manager, Process


def work(shared, gate):
    for _ in range(10):
        gate.wait()
        words = shared["words"]
        time.sleep(0.01)
        shared["words"] = [*words, "one"]  # written back, and over what the other one wrote


if __name__ == "__main__":
    with Manager() as manager:
        shared, gate = manager.dict(words=[]), Barrier(2)
        workers = [Process(target=work, args=(shared, gate)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print("words:", len(shared["words"]))
