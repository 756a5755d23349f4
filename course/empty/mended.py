from multiprocessing import Queue

if __name__ == "__main__":
    queue, got = Queue(), 0
    for number in range(100):
        queue.put(number)
    queue.put(None)  # the end is an item, not a state
    while queue.get() is not None:
        got += 1
    print("got, of 100:", got)
