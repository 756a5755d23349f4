import sys
from multiprocessing import Array, Barrier, Condition, Process, Value


class Room:
    def __init__(self):
        self.condition = Condition()
        self.readers = Value("i", 0, lock=False)
        self.writing = Value("i", 0, lock=False)

    def begin_reading(self):
        with self.condition:
            while self.writing.value:
                self.condition.wait()
            self.readers.value += 1

    def end_reading(self):
        with self.condition:
            self.readers.value -= 1
            self.condition.notify_all()

    def begin_writing(self):
        with self.condition:
            while self.writing.value or self.readers.value:
                self.condition.wait()
            self.writing.value = 1

    def end_writing(self):
        with self.condition:
            self.writing.value = 0
            self.condition.notify_all()


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
