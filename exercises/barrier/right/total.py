import sys
from multiprocessing import Array, Condition, Process, Value


class Meeting:
    def __init__(self, parties):
        self.parties = parties
        self.arrived = Value("i", 0, lock=False)
        self.round = Value("i", 0, lock=False)
        self.condition = Condition()

    def wait(self):
        with self.condition:
            self.arrived.value += 1
            goal = -(-self.arrived.value // self.parties) * self.parties
            self.condition.notify_all()
            self.condition.wait_for(lambda: self.arrived.value >= goal)


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
