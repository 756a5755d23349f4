from multiprocessing import Pipe, Process


def speak(end):
    for word in ("one", "two", "three"):
        end.send(word)


if __name__ == "__main__":
    here, there = Pipe()
    Process(target=speak, args=(there,)).start()
    there.close()
    words = []
    try:
        while True:
            words.append(here.recv())
    except EOFError:
        print("end of file: yes")
    print("received:", len(words))
