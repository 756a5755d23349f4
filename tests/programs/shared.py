"""A value, arrays and a pipe shared with a child, and a class of processes."""

import multiprocessing as mp
import multiprocessing.connection
from multiprocessing.sharedctypes import Array, Value


class Doubler(mp.Process):
    """Doubles what it is sent, until there is nothing more."""

    def __init__(self, end):
        super().__init__(name="doubler", daemon=True)
        self.end = end

    def run(self):
        while (number := self.end.recv()) is not None:
            self.end.send((self.name, number * 2))
        self.end.close()
        raise SystemExit(3)


def change(number, array, letters):
    number.value = 3.1415927
    for i in range(len(array)):
        array[i] = -array[i]
    with letters.get_lock():
        letters.value = letters.value.upper()


def main():
    number, array, letters = Value("d", 0.0), Array("i", range(10)), mp.Array("c", b"quiet")
    child = mp.Process(target=change, args=(number, array, letters))
    child.start()
    child.join()
    print(number.value, array[:], letters.value)

    here, there = mp.Pipe()
    doubler = Doubler(there)
    doubler.start()
    there.close()
    for number in (1, 2, None):
        here.send(number)
    print(here.recv(), here.recv(), isinstance(here, multiprocessing.connection.Connection))
    try:
        here.recv()
    except EOFError:
        print("end of file")
    doubler.join()
    print(doubler.exitcode, doubler.name)


if __name__ == "__main__":
    main()
