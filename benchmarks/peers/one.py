"""The interpreter of one library: it reads the names of rows from standard input, and writes a line of JSON for each."""

from __future__ import annotations

import json
import sys

from benchmarks.peers import peers, works


def main(name: str) -> None:
    """Measure what is asked for, until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    peer = peers.open_peer(name)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    try:
        for line in sys.stdin:
            try:
                said: dict[str, float | str] = {"value": works.ROWS[line.strip()][1](peer)}
            except peers.CannotDo as exc:
                said = {"cannot": str(exc)}
            print(json.dumps(said), file=answers, flush=True)
    finally:
        peer.close()


if __name__ == "__main__":
    main(sys.argv[1])
