from multiprocessing import Process, Queue


def work(queue, size):
    queue.put("x" * size)


if __name__ == "__main__":
    for name, size in (("small", 10), ("large", 10_000_000)):
        queue = Queue()
        worker = Process(target=work, args=(queue, size))
        worker.start()
        worker.join(8)
        print(f"{name}, ended within eight seconds:", "no" if worker.is_alive() else "yes")
        queue.get()
