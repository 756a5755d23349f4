"""Locks, semaphores, a condition, an event, a barrier and a queue that can be joined."""

from multiprocessing import (
    Barrier,
    Condition,
    Event,
    JoinableQueue,
    Lock,
    Process,
    RLock,
    Semaphore,
    SimpleQueue,
    Value,
    get_context,
)


def tell(lock, said, number):
    with lock:
        said.put(f"hello from {number}")


def consume(tasks, total):
    while True:
        number = tasks.get()
        with total.get_lock():
            total.value += number
        tasks.task_done()


def turn(condition, whose, me, said):
    with condition:
        condition.wait_for(lambda: whose.value == me, timeout=60)
        said.put(f"turn of {me}")
        whose.value += 1
        condition.notify_all()


def meet(barrier, go, slots, said):
    go.wait(60)
    with slots:
        pass
    said.put(("met", barrier.wait(60) >= 0))


def together(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main():
    lock, said = Lock(), SimpleQueue()
    together(*(Process(target=tell, args=(lock, said, n)) for n in range(4)))
    print(sorted(said.get() for _ in range(4)))

    tasks, total = JoinableQueue(), Value("i", 0, lock=RLock())
    for _ in range(2):
        Process(target=consume, args=(tasks, total), daemon=True).start()
    for n in range(20):
        tasks.put(n)
    tasks.join()
    print(total.value)

    condition, whose = Condition(), Value("i", 0)
    together(*(Process(target=turn, args=(condition, whose, n, said)) for n in (2, 0, 1)))
    print([said.get() for _ in range(3)])

    context = get_context()
    barrier, go, slots = Barrier(3), Event(), Semaphore(1)
    processes = [context.Process(target=meet, args=(barrier, go, slots, said)) for _ in range(3)]
    for process in processes:
        process.start()
    go.set()
    for process in processes:
        process.join()
    print([said.get() for _ in range(3)], [process.exitcode for process in processes])


if __name__ == "__main__":
    main()
