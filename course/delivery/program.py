import sys
from multiprocessing import Process, Value


def work(task, attempt, counter):
    with counter.get_lock():
        counter.value += 1
    if task == 3 and attempt == 1:
        sys.exit(1)  # it is done, and nobody will hear of it


def deliver(task, counter, attempt=1):
    worker = Process(target=work, args=(task, attempt, counter))
    worker.start()
    worker.join()
    if worker.exitcode != 0:
        deliver(task, counter, attempt + 1)


if __name__ == "__main__":
    counter = Value("i", 0)
    for task in range(5):
        deliver(task, counter)
    print("counted:", counter.value)
