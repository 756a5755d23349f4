from multiprocessing import Process


def work():
    pass


child = Process(target=work)
child.start()
child.join()
print("exit code of the child:", child.exitcode)
