import time
from multiprocessing import Process, Value

TIMEOUT = 2


def work(begun, beats):
    with begun.get_lock():
        begun.value += 1
    for _ in range(20):
        beats.value += 1  # says, again and again, that it still has it
        time.sleep(0.25)


if __name__ == "__main__":
    begun, beats, heard, worker = Value("i", 0), Value("i", 0), -1, None
    while worker is None or (worker.is_alive() and beats.value == heard):  # nothing was heard of it
        worker = Process(target=work, args=(begun, beats))
        worker.start()
        worker.join(TIMEOUT)
        while worker.is_alive() and beats.value != heard:
            heard = beats.value
            worker.join(TIMEOUT)
    print("times begun:", begun.value)
