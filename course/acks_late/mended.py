import sys
from multiprocessing import Process, Value


def work(task, attempt, done):
    if task == 2 and attempt == 1:
        sys.exit(1)
    with done.get_lock():
        done.value += 1


if __name__ == "__main__":
    done, todo = Value("i", 0), [(task, 1) for task in range(5)]
    while todo:
        task, attempt = todo.pop(0)
        worker = Process(target=work, args=(task, attempt, done))
        worker.start()
        worker.join()
        if worker.exitcode != 0:
            todo.append((task, attempt + 1))  # its worker was lost, so it goes back
    print("tasks done, of 5:", done.value)
