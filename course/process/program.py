import os
import sys
import time
from multiprocessing import Process


def work(code):
    time.sleep(1)
    sys.exit(code)


if __name__ == "__main__":
    child = Process(target=work, args=(3,))
    child.start()
    print("exit code before join:", child.exitcode)
    child.join()
    print("exit code after join:", child.exitcode)
    print("the child has the parent's process id:", "yes" if child.pid == os.getpid() else "no")
