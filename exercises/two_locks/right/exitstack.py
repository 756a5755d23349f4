import sys
from contextlib import ExitStack
from multiprocessing import Array, Lock, Process


def move(accounts, locks, source, target, amount, times):
    for _ in range(times):
        with ExitStack() as stack:
            for number in sorted({source, target}):
                stack.enter_context(locks[number])
            accounts[source] -= amount
            accounts[target] += amount


if __name__ == "__main__":
    there, back, times = (int(text) for text in sys.argv[1:])
    accounts = Array("i", [100, 100], lock=False)
    locks = [Lock() for _ in range(2)]
    one = Process(target=move, args=(accounts, locks, 0, 1, there, times))
    two = Process(target=move, args=(accounts, locks, 1, 0, back, times))
    one.start()
    two.start()
    one.join()
    two.join()
    print(accounts[0], accounts[1])
