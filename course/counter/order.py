from multiprocessing import Process, Value


def count(counter):
    counter.value += 1


if __name__ == "__main__":
    counter = Value("i", 0)
    workers = [Process(target=count, args=(counter,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("counted:", counter.value)
