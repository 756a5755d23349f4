# note: a part of the room
import sys
from multiprocessing import Array, Barrier, Process, Semaphore


class Room:
    def __init__(self):
        self.permits = Semaphore(50)

    def begin_reading(self):
        self.permits.acquire()

    def end_reading(self):
        self.permits.release()

    def begin_writing(self):
        for _ in range(50):
            self.permits.acquire()

    def end_writing(self):
        for _ in range(50):
            self.permits.release()


def read(room, page, meeting, seen, place):
    room.begin_reading()
    first = page[0]
    meeting.wait()
    second = page[1]
    room.end_reading()
    seen[place] = 1 if first == second else -1


def write(room, page, number):
    room.begin_writing()
    page[0] = number
    page[1] = number
    room.end_writing()


if __name__ == "__main__":
    readers, writers = int(sys.argv[1]), int(sys.argv[2])
    room = Room()
    page = Array("i", 2, lock=False)
    meeting = Barrier(readers)
    seen = Array("i", readers)
    team = [Process(target=read, args=(room, page, meeting, seen, place)) for place in range(readers)]
    team += [Process(target=write, args=(room, page, number)) for number in range(1, writers + 1)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(seen[:], page[0] == page[1])
