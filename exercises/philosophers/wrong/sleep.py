# note: a sleep
import random
import sys
import time
from multiprocessing import Array, Lock, Process


def dine(forks, meals, seat, times):
    left, right = seat, (seat + 1) % len(forks)
    for _ in range(times):
        time.sleep(random.random() / 10)
        with forks[left]:
            with forks[right]:
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
