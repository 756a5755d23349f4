from multiprocessing import Process, Queue


def serve(todo, done):
    while (task := todo.get()) != "end":
        if task == "inner":
            done.put(1)  # what comes after the inner task is told with it: nobody waits
        else:
            todo.put("inner")


if __name__ == "__main__":
    todo, done = Queue(), Queue()
    for _ in range(2):
        todo.put("outer")
    for _ in range(2):
        Process(target=serve, args=(todo, done), daemon=True).start()
    print("answered:", sum(done.get() for _ in range(2)))
