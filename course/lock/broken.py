from multiprocessing import Barrier, Lock, Process, Queue


def work(first, second, gate, got):
    with first:
        gate.wait()  # each holds one
        got.put(second.acquire(timeout=2))
        gate.wait()  # and lets go of it only when both have tried


if __name__ == "__main__":
    a, b, gate, got = Lock(), Lock(), Barrier(2), Queue()
    Process(target=work, args=(a, b, gate, got)).start()
    Process(target=work, args=(b, a, gate, got)).start()
    print("got their second lock:", got.get() + got.get())
