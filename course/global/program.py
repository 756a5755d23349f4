from multiprocessing import Process

count = 0


def add():
    global count
    count += 1


if __name__ == "__main__":
    workers = [Process(target=add) for _ in range(5)]
    for worker in workers:
        worker.start()
        worker.join()
    print("count:", count)
