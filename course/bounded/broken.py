from multiprocessing import Process, Queue
from queue import Full


def consume(queue):
    for _ in range(3):
        queue.get()  # and then this consumer fails


if __name__ == "__main__":
    queue = Queue(maxsize=2)
    consumer = Process(target=consume, args=(queue,))
    consumer.start()
    accepted = 0
    try:
        for item in range(20):
            queue.put(item, timeout=5 if accepted >= 5 else 60)
            accepted += 1
    except Full:
        print("the producer waits for ever: yes")
    print("accepted:", accepted)
    consumer.join()
    while accepted > 3:
        queue.get()
        accepted -= 1
