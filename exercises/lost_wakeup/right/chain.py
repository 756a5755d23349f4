import sys
from multiprocessing import Array, Condition, Process, Value


def wait(ready, condition, seen, place):
    with condition:
        while not ready.value:
            condition.wait()
        condition.notify()
    seen[place] = 1


def tell(ready, condition):
    with condition:
        ready.value = 1
        condition.notify()


if __name__ == "__main__":
    count = int(sys.argv[1])
    ready, condition, seen = Value("i", 0), Condition(), Array("i", count)
    team = [Process(target=wait, args=(ready, condition, seen, place)) for place in range(count)]
    team.append(Process(target=tell, args=(ready, condition)))
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(sum(seen[:]))
