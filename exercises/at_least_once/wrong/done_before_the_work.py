# note: not worked
import sys
import time
from multiprocessing import Array, Process


def work(tasks, done, acked):
    for number in tasks:
        done[number] += 1
        acked[number] = 1
        time.sleep(0.05)  # it takes a while


if __name__ == "__main__":
    count, kill_after = int(sys.argv[1]), int(sys.argv[2])
    done = Array("i", count, lock=False)
    acked = Array("i", count, lock=False)
    worker = Process(target=work, args=(list(range(count)), done, acked))
    worker.start()
    if kill_after >= 0:
        time.sleep(kill_after / 1000)
        worker.kill()
    worker.join()
    left = [number for number in range(count) if not acked[number]]
    worker = Process(target=work, args=(left, done, acked))
    worker.start()
    worker.join()
    times = list(done)
    print(f"lost {times.count(0)}, too often {max(sum(times) - count - 1, 0)}")
