from multiprocessing import Pool


def invert(number):
    return 1 / number


if __name__ == "__main__":
    results = []
    with Pool(3) as pool:
        try:
            results = pool.map(invert, [1, 2, 0, 4, 5, 6], 1)
        except ZeroDivisionError:
            print("raised: yes")
    print("results:", len(results))
