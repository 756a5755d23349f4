import time
from multiprocessing import Process, Queue, Value


def consume(queue, done):
    while queue.get() is not None:
        time.sleep(0.05)
        done.value += 1


if __name__ == "__main__":
    queue, done = Queue(), Value("i", 0)
    consumer = Process(target=consume, args=(queue, done))
    consumer.start()
    for item in range(1, 21):
        queue.put(item)
    print("put and not done yet:", item - done.value)
    queue.put(None)
    consumer.join()
    print("done in the end:", done.value)
