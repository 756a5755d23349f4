from multiprocessing import Barrier, Manager, Process


def work(words, gate):
    for _ in range(10):
        gate.wait()
        words.append("one")  # one call to the manager, which does it whole


if __name__ == "__main__":
    with Manager() as manager:
        words, gate = manager.list(), Barrier(2)
        workers = [Process(target=work, args=(words, gate)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print("words:", len(words))
