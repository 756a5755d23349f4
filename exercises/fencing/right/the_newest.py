import sys
from multiprocessing import Lock, Process, Value


class Store:
    def __init__(self):
        self.lock = Lock()
        self.newest = Value("i", 0, lock=False)
        self.value = Value("i", 0)

    def write(self, token, value):
        with self.lock:
            self.newest.value = max(token, self.newest.value)
            if self.newest.value == token:
                self.value.value = value


def hold(lease, store):
    with lease.get_lock():
        lease.value += 1
        token = lease.value
    store.write(token, 10 * token + 1)
    store.write(token, 10 * token + 2)


if __name__ == "__main__":
    holders = int(sys.argv[1])
    lease = Value("i", 0)
    store = Store()
    team = [Process(target=hold, args=(lease, store)) for _ in range(holders)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(lease.value, store.value.value)
