from multiprocessing import Manager, Process


def work(shared):
    shared["words"].append("one")
    shared["number"] = 1


if __name__ == "__main__":
    with Manager() as manager:
        shared = manager.dict(words=[], number=0)
        worker = Process(target=work, args=(shared,))
        worker.start()
        worker.join()
        print("words:", len(shared["words"]))
        print("number:", shared["number"])
