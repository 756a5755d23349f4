import threading
import time
from multiprocessing import get_context

lock, held = threading.Lock(), threading.Event()  # such as a logger's, or one in some library


def hold():
    with lock:
        held.set()
        time.sleep(1)


def child():
    with lock:
        pass


if __name__ == "__main__":
    threading.Thread(target=hold).start()
    held.wait()
    worker = get_context("fork").Process(target=child, daemon=True)
    worker.start()
    worker.join(8)
    print("ended within eight seconds:", "no" if worker.is_alive() else "yes")
