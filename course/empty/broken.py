from multiprocessing import Queue
from queue import Empty

if __name__ == "__main__":
    queue, missed = Queue(), 0
    for number in range(100):
        queue.put(number)
        try:
            queue.get_nowait()
        except Empty:
            missed += 1
            queue.get()
    print("missed right after a put, of 100 times:", missed)
