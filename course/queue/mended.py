from multiprocessing import Process, Queue


def consume(todo, counts):
    taken = 0
    while todo.get() is not None:
        taken += 1
    todo.put(None)  # the end is handed on: one is enough, however many consumers there are
    counts.put(taken)


if __name__ == "__main__":
    todo, counts = Queue(), Queue()
    consumers = [Process(target=consume, args=(todo, counts)) for _ in range(3)]
    for consumer in consumers:
        consumer.start()
    for item in [*range(30), None]:
        todo.put(item)
    print("taken by all together:", sum(counts.get() for _ in consumers))
    todo.get()  # the last None, which nobody takes
    for consumer in consumers:
        consumer.join()
    print("still waiting:", sum(consumer.is_alive() for consumer in consumers))
