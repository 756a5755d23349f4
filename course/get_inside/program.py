from multiprocessing import Barrier, Process, Queue
from queue import Empty


def serve(todo, inner, done, gate):
    while (task := todo.get()) != "end":
        if task == "inner":
            inner.put(1)
            continue
        todo.put("inner")  # asks for a task of the same workers,
        try:
            answer = inner.get(timeout=5)  # and waits for it
        except Empty:
            answer = 0
        gate.wait()
        done.put(answer)


if __name__ == "__main__":
    todo, inner, done, gate = Queue(), Queue(), Queue(), Barrier(2)
    for _ in range(2):
        todo.put("outer")
    for _ in range(2):
        Process(target=serve, args=(todo, inner, done, gate), daemon=True).start()
    print("answered:", sum(done.get() for _ in range(2)))
