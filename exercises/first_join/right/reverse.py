import sys
from multiprocessing import Array, Process


def work(results, place, number):
    results[place] = number * number


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    results = Array("i", len(numbers))
    team = [Process(target=work, args=(results, place, number)) for place, number in enumerate(numbers)]
    for one in team:
        one.start()
    while team:
        team.pop().join()
    print(sum(results[:]))
