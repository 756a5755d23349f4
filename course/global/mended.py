from multiprocessing import Pool


def one(_):
    return 1


if __name__ == "__main__":
    with Pool(5) as pool:
        print("count:", sum(pool.map(one, range(5))))
