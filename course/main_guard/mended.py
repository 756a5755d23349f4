from multiprocessing import Process


def work():
    pass


if __name__ == "__main__":
    child = Process(target=work)
    child.start()
    child.join()
    print("exit code of the child:", child.exitcode)
