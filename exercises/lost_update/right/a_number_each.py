import sys
from multiprocessing import Array, Process


def work(counter, seat, times):
    for _ in range(times):
        counter[seat] += 1


if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    counter = Array("i", workers)
    team = [Process(target=work, args=(counter, seat, times)) for seat in range(workers)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(sum(counter[:]))
