"""One process writes into a pipe, another reads from it."""

from multiprocessing import Pipe, Process


def write(end):
    """Send a greeting."""
    end.send("Hello from the other end")


def read(end):
    """Print what arrives."""
    print(end.recv())


def main():
    """Give each process one end."""
    left, right = Pipe()
    processes = [Process(target=write, args=(left,)), Process(target=read, args=(right,))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
