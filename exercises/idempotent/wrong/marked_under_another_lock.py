# note: marked first
import sys
from multiprocessing import Array, Process, Value


def work(tasks, balance, done):
    for number, amount in tasks:
        with done.get_lock():
            if done[number]:
                continue
            done[number] = 1
        with balance.get_lock():
            balance.value += amount


if __name__ == "__main__":
    amounts = [int(text) for text in sys.argv[1:]]
    tasks = list(enumerate(amounts))
    balance = Value("i", 100)
    done = Array("i", len(tasks))
    team = [Process(target=work, args=(delivered, balance, done)) for delivered in (tasks, tasks[::-1])]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(balance.value)
