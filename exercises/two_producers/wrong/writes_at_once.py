# note: as they come
import sys
from multiprocessing import Array, Process, Queue, Value


def produce(numbers, queue, count):
    for _ in range(count):
        with numbers.get_lock():
            numbers.value += 1
            number = numbers.value
        queue.put(number)


def consume(queue, out):
    for _ in range(len(out)):
        number = queue.get()
        out[number - 1] = number


if __name__ == "__main__":
    count = int(sys.argv[1])
    numbers = Value("i", 0)
    queue = Queue()
    out = Array("i", 2 * count)
    team = [Process(target=produce, args=(numbers, queue, count)) for _ in range(2)]
    team.append(Process(target=consume, args=(queue, out)))
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(*out[:])
