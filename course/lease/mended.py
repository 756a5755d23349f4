import time
from multiprocessing import Event, Process, Value


def write(file, token):
    with file.get_lock():
        file.value = max(file.value, token)  # what comes with an older token is refused


def hold(file, taken):
    taken.set()
    time.sleep(2)
    write(file, 1)


if __name__ == "__main__":
    file, taken = Value("i", 0), Event()
    late = Process(target=hold, args=(file, taken))
    late.start()
    taken.wait()
    time.sleep(1)
    write(file, 2)
    late.join()
    print("the file was written last by:", file.value)
