"""What the children of the tests of watches, structures and parents run."""

from __future__ import annotations

import ctypes
import time
from multiprocessing import current_process, parent_process
from typing import Any


class Inner(ctypes.Structure):
    _fields_ = [("number", ctypes.c_short), ("name", ctypes.c_char * 6)]


class Point(ctypes.Structure):
    _fields_ = [
        ("x", ctypes.c_double),
        ("n", ctypes.c_int),
        ("inner", Inner),
        ("row", ctypes.c_int * 3),
        ("letter", ctypes.c_wchar * 3),
        ("z", ctypes.c_longlong),
    ]


class Longer(Point):
    _fields_ = [("more", ctypes.c_longlong)]


def send_all(conn: Any, messages: list[Any]) -> None:
    for message in messages:
        conn.send(message)
    conn.close()


def send_when_told(conn: Any, go: Any, message: Any) -> None:
    go.wait(30)
    conn.send(message)


def hold(conn: Any) -> None:
    """Hold an end, say so, and never end."""
    conn.send("holding")
    time.sleep(300)


def wait_here(reader: Any, reply: Any) -> None:
    """Wait for a descriptor on another host, too."""
    from multiprocessing.connection import wait

    assert wait([reader], 30) == [reader]
    reply.put(reader.recv())


def tell_key(reply: Any) -> None:
    reply.put(bytes(current_process().authkey))


def have_a_child(ctx: Any, conn: Any) -> None:
    ctx.Process(target=outlive, args=(conn,)).start()
    time.sleep(300)


def have_a_child_on_the_cluster(conn: Any) -> None:
    import lab

    have_a_child(lab.get_context("cluster"), conn)


def outlive(conn: Any) -> None:
    """Tell whether the parent lives, wait for its end, tell again."""
    parent = parent_process()
    assert parent is not None
    conn.send((parent.name, parent.is_alive()))
    begun = time.monotonic()
    parent.join(60)
    conn.send((parent.is_alive(), time.monotonic() - begun))


def change_point(point: Any) -> None:
    point.x *= 2
    point.inner.number = 7
    point.inner.name = b"ab"
    point.row[1] = 5
    point.letter = "hé"
    point.z = 2**40


def change_longer(longer: Any) -> None:
    longer.n += 1
    longer.more = 2**41


def square_all(points: Any) -> None:
    for point in points:
        point.x **= 2
        point.inner.number += 1


def fill_table(table: Any) -> None:
    for row, cells in enumerate(table):
        for column in range(len(cells)):
            cells[column] = 10 * row + column
