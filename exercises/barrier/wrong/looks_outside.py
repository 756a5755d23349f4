# note: none
import sys
from multiprocessing import Array, Condition, Process, Value


class Meeting:
    def __init__(self, parties):
        self.parties = parties
        self.arrived = Value("i", 0, lock=False)
        self.condition = Condition()
        self.sense = Value("b", 0, lock=False)

    def wait(self):
        with self.condition:
            self.arrived.value += 1
            if self.arrived.value == self.parties:
                self.arrived.value = 0
                self.sense.value = 1 - self.sense.value
                self.condition.notify_all()
                return
        mine = self.sense.value
        with self.condition:
            while self.sense.value == mine:
                self.condition.wait()


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
