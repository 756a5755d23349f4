import sys
from multiprocessing import Array, Lock, Process


def dine(forks, meals, seat, times):
    pair = [forks[seat], forks[(seat + 1) % len(forks)]]
    if seat % 2:
        pair.reverse()
    for _ in range(times):
        with pair[0], pair[1]:
            meals[seat] += 1


if __name__ == "__main__":
    seats, times = int(sys.argv[1]), int(sys.argv[2])
    forks = [Lock() for _ in range(seats)]
    meals = Array("i", seats)
    team = [Process(target=dine, args=(forks, meals, seat, times)) for seat in range(seats)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(*meals[:])
