# note: nobody started
import sys

if __name__ == "__main__":
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    print(workers * times)
