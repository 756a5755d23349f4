from multiprocessing import Pool


def invert(number):
    return 1 / number


if __name__ == "__main__":
    results = []
    with Pool(2) as pool:
        for number in (1, 2, 0, 4):
            pool.apply_async(invert, (number,), callback=results.append)
        pool.close()
        pool.join()
    print("results:", len(results))
