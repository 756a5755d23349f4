import os
import signal
from multiprocessing import Process


def work():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    child = Process(target=work)
    child.start()
    child.join()
    print("exit code:", child.exitcode)
