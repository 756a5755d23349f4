import sys
from multiprocessing import Process, Value


def work(task, done):
    if task == 2:
        sys.exit(1)
    with done.get_lock():
        done.value += 1


if __name__ == "__main__":
    done, todo = Value("i", 0), [0, 1, 2, 3, 4]
    while todo:
        worker = Process(target=work, args=(todo[0], done))
        worker.start()
        worker.join()
        todo.pop(0)  # acknowledged late, when its worker has ended, however it ended
    print("tasks done, of 5:", done.value)
