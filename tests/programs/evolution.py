"""SciPy looks for the lowest point of a bumpy surface, and hands its evaluations to a pool."""

import math
import multiprocessing

from scipy.optimize import differential_evolution


def ackley(x):
    a = -20 * math.exp(-0.2 * math.sqrt(0.5 * (x[0] ** 2 + x[1] ** 2)))
    b = -math.exp(0.5 * (math.cos(2 * math.pi * x[0]) + math.cos(2 * math.pi * x[1])))
    return a + b + math.e + 20


def search(workers):
    found = differential_evolution(
        ackley, [(-5, 5), (-5, 5)], rng=1, workers=workers, updating="deferred", maxiter=30, polish=False
    )
    return found.nfev, found.nit, repr(found.fun), found.x.tolist()


if __name__ == "__main__":
    alone = search(1)
    with multiprocessing.Pool(3) as pool:
        shared = search(pool.map)
    print(alone == shared, shared)
