import sys
from multiprocessing import Array, Lock, Process, Semaphore, Value


class Meeting:
    def __init__(self, parties):
        self.parties = parties
        self.arrived = Value("i", 0, lock=False)
        self.lock, self.first, self.second = Lock(), Semaphore(0), Semaphore(0)

    def wait(self):
        with self.lock:
            self.arrived.value += 1
            if self.arrived.value == self.parties:
                for _ in range(self.parties):
                    self.first.release()
        self.first.acquire()
        with self.lock:
            self.arrived.value -= 1
            if self.arrived.value == 0:
                for _ in range(self.parties):
                    self.second.release()
        self.second.acquire()


def work(meeting, progress, behind, seat, rounds):
    for number in range(1, rounds + 1):
        progress[seat] = number
        meeting.wait()
        if min(progress[:]) < number:
            behind[seat] += 1


if __name__ == "__main__":
    parties, rounds = int(sys.argv[1]), int(sys.argv[2])
    meeting = Meeting(parties)
    progress = Array("i", parties)
    behind = Array("i", parties)
    team = [Process(target=work, args=(meeting, progress, behind, seat, rounds)) for seat in range(parties)]
    for one in team:
        one.start()
    for one in team:
        one.join()
    print(progress[:], sum(behind[:]))
