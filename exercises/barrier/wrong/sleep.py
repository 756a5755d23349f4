# note: a sleep
import sys
import time
from multiprocessing import Array, Process


class Meeting:
    def __init__(self, parties):
        self.parties = parties

    def wait(self):
        time.sleep(0.5)


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
