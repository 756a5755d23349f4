from multiprocessing import Process, Queue


def work(queue):
    for number in range(100_000):  # many small ones
        queue.put(number)


if __name__ == "__main__":
    queue = Queue()
    worker = Process(target=work, args=(queue,))
    worker.start()
    worker.join(8)
    print("ended within eight seconds:", "no" if worker.is_alive() else "yes")
    for _ in range(100_000):
        queue.get()
