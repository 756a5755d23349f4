import sys
from multiprocessing import Process


def work(attempt):
    if attempt < 3:
        sys.exit(1)  # twice the child fails


def until_well(attempt=1):
    child = Process(target=work, args=(attempt,))
    child.start()
    child.join()
    return attempt if child.exitcode == 0 else until_well(attempt + 1)


if __name__ == "__main__":
    print("attempts:", until_well())
