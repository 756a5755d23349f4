import threading
from multiprocessing import Pool

own = threading.local()


def serve(user):
    own.user = user  # set by each call, taken away after it
    try:
        return own.user
    finally:
        del own.user


if __name__ == "__main__":
    with Pool(1) as pool:
        served = [pool.apply(serve, (user,)) for user in ("ann", "ben", "cid")]
    print("served as ann:", served.count("ann"))
