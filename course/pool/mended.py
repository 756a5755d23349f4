from multiprocessing import Pool


def invert(number):
    return 1 / number


if __name__ == "__main__":
    results, failed = [], []
    with Pool(3) as pool:
        calls = [(number, pool.apply_async(invert, (number,))) for number in [1, 2, 0, 4, 5, 6]]
        for number, call in calls:
            try:
                results.append(call.get())
            except ZeroDivisionError:
                failed.append(number)
    print("results:", len(results))
    print("failed:", len(failed))
