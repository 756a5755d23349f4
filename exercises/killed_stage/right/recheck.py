import sys
import time
from multiprocessing import Array, Process, Semaphore, Value


def square(numbers, squares, ready, more):
    more.release()
    for place in range(ready.value, len(numbers)):
        time.sleep(0.05)  # it takes a while
        squares[place] = numbers[place] ** 2
        ready.value = place + 1
        more.release()


def add(squares, ready, more, total):
    for place in range(len(squares)):
        while ready.value <= place:
            more.acquire()
        total.value += squares[place]


if __name__ == "__main__":
    kill_after, *numbers = (int(text) for text in sys.argv[1:])
    squares = Array("i", len(numbers), lock=False)
    ready = Value("i", 0, lock=False)
    more = Semaphore(0)
    total = Value("i", 0)
    adder = Process(target=add, args=(squares, ready, more, total))
    worker = Process(target=square, args=(numbers, squares, ready, more))
    adder.start()
    worker.start()
    if kill_after >= 0:
        time.sleep(kill_after / 1000)
        worker.kill()
        worker.join()
        worker = Process(target=square, args=(numbers, squares, ready, more))
        worker.start()
    worker.join()
    adder.join()
    print(total.value)
