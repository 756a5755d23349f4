from multiprocessing import Process


def add(found, number):
    found.append(number)


if __name__ == "__main__":
    found = []  # handed over this time
    workers = [Process(target=add, args=(found, number)) for number in range(5)]
    for worker in workers:
        worker.start()
        worker.join()
    print("found:", len(found))
