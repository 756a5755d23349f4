"""Workers take tasks from a queue until they read STOP, and put what comes of them into another."""

from multiprocessing import Process, Queue, current_process


def work(tasks, results):
    for function, args in iter(tasks.get, "STOP"):
        assert current_process().name.startswith("worker-")
        results.put(f"{function.__name__}{args} = {function(*args)}")


def multiply(a, b):
    return a * b


def plus(a, b):
    return a + b


def main():
    tasks, results = Queue(), Queue()
    first = [(multiply, (i, 7)) for i in range(20)]
    second = [(plus, (i, 8)) for i in range(10)]
    for task in first:
        tasks.put(task)
    workers = [Process(target=work, args=(tasks, results), name=f"worker-{i}") for i in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in first]
    for task in second:
        tasks.put(task)
    found += [results.get(timeout=60) for _ in second]
    for _ in workers:
        tasks.put("STOP")
    for worker in workers:
        worker.join()
    print("\n".join(sorted(found)))
    print([worker.exitcode for worker in workers])


if __name__ == "__main__":
    main()
