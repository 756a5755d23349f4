"""DEAP breeds the knapsack with the most in it, and hands the judging of each generation to a pool."""

import multiprocessing
import random

from deap import algorithms, base, creator, tools

ITEMS = [(weight, weight * 7 % 13 + 1) for weight in range(1, 25)]
ROOM = 100

creator.create("Worth", base.Fitness, weights=(1.0,))
creator.create("Knapsack", list, fitness=creator.Worth)


def judge(knapsack):
    packed = [item for item, taken in zip(ITEMS, knapsack, strict=True) if taken]
    return (sum(worth for _, worth in packed) if sum(weight for weight, _ in packed) <= ROOM else 0,)


def breed(map_):
    random.seed(3)
    toolbox = base.Toolbox()
    toolbox.register("gene", random.randint, 0, 1)
    toolbox.register("individual", tools.initRepeat, creator.Knapsack, toolbox.gene, len(ITEMS))
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", judge)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
    toolbox.register("select", tools.selTournament, tournsize=3)
    toolbox.register("map", map_)
    population, log = algorithms.eaSimple(toolbox.population(40), toolbox, 0.5, 0.2, 12, verbose=False)
    best = tools.selBest(population, 1)[0]
    return best, best.fitness.values, log.select("nevals")


if __name__ == "__main__":
    alone = breed(map)
    with multiprocessing.Pool(3) as pool:
        shared = breed(pool.map)
    print(alone == shared, shared)
