# note: ready made
import sys
from multiprocessing import Array, Barrier, Process


class Meeting:
    def __init__(self, parties):
        self.barrier = Barrier(parties)

    def wait(self):
        self.barrier.wait()


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
