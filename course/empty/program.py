from multiprocessing import Queue

if __name__ == "__main__":
    queue, empty = Queue(), 0
    for number in range(100):
        queue.put(number)
        empty += queue.empty()
        queue.get()
    print("said to be empty right after a put, of 100 times:", empty)
