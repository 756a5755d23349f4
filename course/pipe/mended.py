from multiprocessing import Pipe, Process


def speak(end):
    for word in ("one", "two", "three"):
        end.send(word)


if __name__ == "__main__":
    here, there = Pipe(duplex=False)  # one direction, so it is clear who may write
    child = Process(target=speak, args=(there,))
    child.start()
    with there:
        pass  # our copy is closed: the child's is the last one
    child.join()
    words = [here.recv() for _ in range(3)]
    print("end of file:", "yes" if here.poll(3) else "no")
    print("received:", len(words))
