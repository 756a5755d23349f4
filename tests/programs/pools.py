"""A pool asked in every way: waiting or not, in order or not, with callbacks, time limits, errors, and closed."""

import multiprocessing
import time

import arithmetic


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __repr__(self):
        return f"Point({self.x}, {self.y})"


def mirrored(point):
    return Point(point.y, point.x)


def square(x):
    return x * x


def slow(x):
    time.sleep(x)
    return x


def main():
    done = []
    with multiprocessing.Pool(4) as pool:
        print(pool.map(arithmetic.cube, range(10)))
        print(pool.map(mirrored, [Point(1, 2)]), isinstance(pool.apply(mirrored, (Point(3, 4),)), Point))
        print(list(pool.imap(square, range(10), chunksize=3)))
        print(sorted(pool.imap_unordered(square, range(10))))
        print(pool.starmap(pow, [(2, 5), (3, 2)]))
        print(pool.apply(arithmetic.calculate, (arithmetic.add, 7, 8)))

        result = pool.apply_async(square, (20,), callback=done.append)
        print(result.get(timeout=30), done)

        try:
            pool.apply_async(slow, (20,)).get(timeout=0.2)
        except multiprocessing.TimeoutError:
            print("no result in time")

        try:
            pool.apply(arithmetic.divide, (1, 0))
        except ZeroDivisionError as error:
            print("error:", error)

        failed = []
        pool.apply_async(arithmetic.divide, (1, 0), error_callback=failed.append).wait(30)
        print([type(error).__name__ for error in failed])

        numbers = pool.imap(arithmetic.reciprocal, [1, 2, 0, 4])
        for _ in range(4):
            try:
                print(next(numbers))
            except ZeroDivisionError:
                print("not for zero")

    try:
        pool.apply(square, (2,))
    except ValueError as error:
        print(error)

    pool = multiprocessing.Pool(2, arithmetic.remember, ("hello",), maxtasksperchild=3)
    print(set(pool.map(arithmetic.recall, range(12), chunksize=1)))
    pool.close()
    pool.join()
    print("closed")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
