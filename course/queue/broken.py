from multiprocessing import Process, Queue


def consume(todo, counts):
    taken = 0
    while todo.get() is not None:
        taken += 1
    counts.put(taken)


if __name__ == "__main__":
    todo, counts = Queue(), Queue()
    consumers = [Process(target=consume, args=(todo, counts), daemon=True) for _ in range(3)]
    for consumer in consumers:
        consumer.start()
    for item in [*range(30), None]:
        todo.put(item)
    counts.get()  # one has ended
    for consumer in consumers:
        consumer.join(2)
    print("still waiting:", sum(consumer.is_alive() for consumer in consumers))
