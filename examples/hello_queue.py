"""A producer puts greetings into a bounded queue, a consumer takes them in the same order."""

from multiprocessing import Process, Queue

PLACES = ["threads", "processes", "cluster"]


def produce(queue):
    """Put a greeting for each place, then None for the end."""
    for place in PLACES:
        queue.put(f"Hello, {place}")
    queue.put(None)


def consume(queue):
    """Print greetings until the end."""
    while (greeting := queue.get()) is not None:
        print(greeting)


def main():
    """Run both at once; the queue holds two items at most."""
    queue = Queue(maxsize=2)
    processes = [Process(target=produce, args=(queue,)), Process(target=consume, args=(queue,))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
