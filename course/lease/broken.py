import time
from multiprocessing import Event, Process, Value


def hold(owner, file, taken):
    owner.value = 1
    taken.set()
    time.sleep(2)  # longer than its lease of one second
    file.value = 1  # it does not know that it is late


if __name__ == "__main__":
    owner, file, taken = Value("i", 0), Value("i", 0), Event()
    late = Process(target=hold, args=(owner, file, taken))
    late.start()
    taken.wait()
    time.sleep(1)  # the lease has run out, so it is ours
    owner.value = 2
    file.value = 2
    late.join()
    print("owner:", owner.value)
    print("the file was written last by:", file.value)
