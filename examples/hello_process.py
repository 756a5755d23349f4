"""A child process, and its parent, say who they are."""

import os
from multiprocessing import Process


def hello(name):
    """Greet, from the child."""
    print(f"child process: {os.getpid()}")
    print(f"Hello {name}")


def main():
    """Start one child, wait for it, then speak."""
    child = Process(target=hello, args=("reader",))
    child.start()
    child.join()
    print(f"parent process: {os.getpid()}")


if __name__ == "__main__":
    main()
