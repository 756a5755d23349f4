# note: none
import sys
from multiprocessing import Array, Lock, Process


def dine(forks, meals, seat, times):
    left, right = seat, (seat + 1) % len(forks)
    for _ in range(times):
        with meals.get_lock():
            forks[left].acquire()
            forks[right].acquire()
        meals[seat] += 1
        forks[left].release()
        forks[right].release()


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
