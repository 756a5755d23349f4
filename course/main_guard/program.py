from multiprocessing import Process

if __name__ == "__main__":
    child = Process(target=lambda: None)
    try:
        child.start()
        child.join()
        print("the lambda ran:", "yes")
    except Exception:
        print("the lambda ran:", "no")
