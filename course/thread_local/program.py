import threading
from multiprocessing import Process

own, common = threading.local(), {}


def look():
    print("the child finds it in the thread-local:", "yes" if hasattr(own, "user") else "no")
    print("the child finds it in the dict:", "yes" if "user" in common else "no")


if __name__ == "__main__":
    own.user = "ann"
    common["user"] = "ann"
    child = Process(target=look)
    child.start()
    child.join()
