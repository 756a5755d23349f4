from multiprocessing import Pool

from lab import share


def add(table, name):
    table.value.append(name)
    return len(table.value) > 0


if __name__ == "__main__":
    table = share(["apple", "pear", "plum"])
    with Pool(2) as pool:
        pool.starmap(add, [(table, name) for name in ("fig", "lime", "kiwi", "date")], 1)
    print("entries:", len(table.value))
