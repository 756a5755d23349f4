"""emcee draws samples from a distribution, and hands the evaluations of its walkers to a pool."""

from multiprocessing import Pool

import emcee
import numpy as np


def log_probability(x, inverse_variance):
    return -0.5 * float(np.sum(inverse_variance * x**2))


def sample(pool):
    start = np.random.default_rng(1).normal(size=(12, 3))
    sampler = emcee.EnsembleSampler(12, 3, log_probability, args=[np.array([1.0, 2.0, 4.0])], pool=pool)
    sampler.random_state = np.random.RandomState(2).get_state()
    sampler.run_mcmc(start, 25)
    return sampler.get_chain(flat=True)


if __name__ == "__main__":
    alone = sample(None)
    with Pool(3) as pool:
        shared = sample(pool)
    print(np.array_equal(alone, shared), shared.shape, shared.mean(axis=0).tolist())
