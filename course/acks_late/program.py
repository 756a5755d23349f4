import sys
from multiprocessing import Process, Queue, Value


def work(todo, done):
    while (task := todo.get()) is not None:  # who takes a task has it off the queue: acknowledged early
        if task == 2:
            sys.exit(1)
        with done.get_lock():
            done.value += 1


if __name__ == "__main__":
    todo, done = Queue(), Value("i", 0)
    for task in [0, 1, 2, 3, 4, None]:
        todo.put(task)
    for _ in range(2):  # whose worker has died gets another one
        worker = Process(target=work, args=(todo, done))
        worker.start()
        worker.join()
    print("tasks done, of 5:", done.value)
