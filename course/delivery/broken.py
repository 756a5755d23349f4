import sys
from multiprocessing import Process, Value


def work(task, counter):
    if task == 3:
        sys.exit(1)  # before it is done
    with counter.get_lock():
        counter.value += 1


if __name__ == "__main__":
    counter = Value("i", 0)
    for task in range(5):
        worker = Process(target=work, args=(task, counter))
        worker.start()
        worker.join()  # and whatever became of it is never tried again
    print("counted:", counter.value)
