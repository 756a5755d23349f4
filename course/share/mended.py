from multiprocessing import Pool

from lab import share


def new_ones(table, name):
    return [] if name in table.value else [name]


if __name__ == "__main__":
    table = share(["apple", "pear", "plum"])
    with Pool(2) as pool:
        found = pool.starmap(new_ones, [(table, name) for name in ("fig", "lime", "kiwi", "pear")], 1)
    print("entries:", len(table.value) + sum(map(len, found)))
