import time
from multiprocessing import Process, Value

TIMEOUT = 2  # whoever has not said by then that it is done is taken for dead


def work(begun):
    with begun.get_lock():
        begun.value += 1
    time.sleep(5)


if __name__ == "__main__":
    begun, workers = Value("i", 0), []
    while not workers or all(worker.is_alive() for worker in workers):  # until somebody is done
        workers.append(Process(target=work, args=(begun,)))
        workers[-1].start()
        workers[0].join(TIMEOUT)
    for worker in workers:
        worker.join()
    print("times begun:", begun.value)
