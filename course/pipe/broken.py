from multiprocessing import Pipe, Process


def speak(end):
    for word in ("one", "two", "three"):
        end.send(word)


if __name__ == "__main__":
    here, there = Pipe()
    child = Process(target=speak, args=(there,))
    child.start()
    child.join()
    words = [here.recv() for _ in range(3)]
    # there.close() is missing, and poll() would say yes at the end of file too
    print("end of file:", "yes" if here.poll(3) else "no")
    print("received:", len(words))
