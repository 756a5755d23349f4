"""Three processes of a pool share thirty calls.

``apply`` asks for one call and waits for it, so the numbers come in order, whoever prints them. (Each process keeps what
it prints until its line is full, so a terminal may show them in three runs.)
"""

from multiprocessing import Pool


def show(number):
    """Print a number, in a process of the pool."""
    print(number, end=" ")


def main():
    """Have the pool print 0 to 29, one call at a time."""
    pool = Pool(processes=3)
    for number in range(30):
        pool.apply(show, (number,))
    pool.close()
    pool.join()
    print()


if __name__ == "__main__":
    main()
