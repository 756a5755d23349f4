import sys
from multiprocessing import Array, Process


def work(task, attempt, done):
    done[task] = 1  # the same, however often it is done
    if task == 3 and attempt == 1:
        sys.exit(1)


def deliver(task, done, attempt=1):
    worker = Process(target=work, args=(task, attempt, done))
    worker.start()
    worker.join()
    if worker.exitcode != 0:
        deliver(task, done, attempt + 1)


if __name__ == "__main__":
    done = Array("i", 5)
    for task in range(5):
        deliver(task, done)
    print("counted:", sum(done))
