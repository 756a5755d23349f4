"""A thread has an id of its own, and its starter's memory.

Threads come from ``threading``, which no place replaces: this prints the same everywhere.
"""

import threading

heard = []


def hello(name):
    """Greet, and leave the name where the main thread finds it."""
    print(f"child thread: {threading.get_ident()}")
    print(f"Hello {name}")
    heard.append(name)


def main():
    """Start one thread, wait for it, then speak."""
    thread = threading.Thread(target=hello, args=("reader",))
    thread.start()
    thread.join()
    print(f"main thread: {threading.get_ident()}, which has heard {heard}")


if __name__ == "__main__":
    main()
