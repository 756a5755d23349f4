import sys
from multiprocessing import Array, Process, Queue, Value


def produce(numbers, queue, count):
    for _ in range(count):
        with numbers.get_lock():
            numbers.value += 1
            number = numbers.value
        queue.put(number)


def consume(queue, out):
    early = {}
    for turn in range(1, len(out) + 1):
        while turn not in early:
            number = queue.get()
            early[number] = True
        out[turn - 1] = turn


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
