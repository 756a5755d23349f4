import time
from multiprocessing import Pool

from lab import share

copies = []


class Table:
    def __setstate__(self, state):  # in a process to which a copy has come
        self.rows = state["rows"]
        copies.append("one")


def look_up(table):
    table = getattr(table, "value", table)  # of what is shared, the table
    time.sleep(0.05)
    return len([copies.pop() for _ in copies[:]])  # since the last call of this process


if __name__ == "__main__":
    (table := Table()).rows = list(range(50_000))
    with Pool(2) as pool:
        print("copies, as an argument:", sum(pool.map(look_up, [table] * 12, 1)))
        print("copies, shared:", sum(pool.map(look_up, [share(table)] * 12, 1)))
