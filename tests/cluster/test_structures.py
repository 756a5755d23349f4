"""Structures, and arrays of them, are one for all children in every place."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from lab.cluster import sharedctypes
from tests.cluster import watch_targets as targets
from tests.cluster.test_contract import finish, start


def run(ctx: Any, target: Any, *args: Any) -> None:
    finish(start(ctx, target, *args))


@pytest.mark.parametrize("lock", [True, False])
def test_a_structure_and_what_it_nests_is_shared(ctx: Any, lock: bool) -> None:
    point = ctx.Value(targets.Point, 1.5, 3, lock=lock)
    assert (point.x, point.n, point.z, point.letter) == (1.5, 3, 0, "")
    run(ctx, targets.change_point, point)
    assert (point.x, point.n, point.inner.number, point.inner.name) == (3.0, 3, 7, b"ab")
    assert (point.row[:], point.letter, point.z) == ([0, 5, 0], "hé", 2**40)


def test_the_fields_that_a_structure_inherits_are_shared(ctx: Any) -> None:
    longer = ctx.RawValue(targets.Longer, 1.5, 3)
    run(ctx, targets.change_longer, longer)
    assert (longer.x, longer.n, longer.more) == (1.5, 4, 2**41)


@pytest.mark.parametrize("lock", [True, False])
def test_an_array_of_structures_is_shared(ctx: Any, lock: bool) -> None:
    points = ctx.Array(targets.Point, [(1.5, 2), (2.5, 3)], lock=lock)
    run(ctx, targets.square_all, points)
    assert [(point.x, point.n, point.inner.number) for point in points] == [(2.25, 2, 1), (6.25, 3, 1)]
    points[0] = targets.Point(9.0, 1)
    points[1] = (8.0, 4)
    assert [(point.x, point.n) for point in points[:]] == [(9.0, 1), (8.0, 4)]
    points[0] = points[1]
    assert (points[0].x, points[-2].n) == (8.0, 4)


def test_an_array_of_arrays_is_shared(cluster: Any) -> None:  # which does not pickle under spawn
    table = cluster.RawArray(ctypes.c_int * 3, 2)
    run(cluster, targets.fill_table, table)
    assert [row[:] for row in table] == [[0, 1, 2], [10, 11, 12]]


def test_a_field_takes_a_whole_structure_or_array(ctx: Any) -> None:
    point = ctx.RawValue(targets.Point)
    point.inner = targets.Inner(4, b"abcdef")
    point.row = (ctypes.c_int * 3)(1, 2, 3)
    assert (point.inner.number, point.inner.name, point.row[:]) == (4, b"abcdef", [1, 2, 3])
    with pytest.raises(TypeError):
        point.n = "one"


def test_an_array_may_be_a_value_and_text_an_array(ctx: Any) -> None:
    assert ctx.RawValue(ctypes.c_int * 3, 1, 2, 3)[:] == [1, 2, 3]
    text = ctx.RawArray("u", "héllo")
    text.value = "xy"
    assert (text.value, len(text)) == ("xy", 5)


def test_numbers_lie_in_redis_as_c_lays_them_out_in_network_order(cluster: Any) -> None:
    point = cluster.RawValue(targets.Point, 1.0, 1)
    data = point._memory.read(0, ctypes.sizeof(targets.Point))
    offset = targets.Point.n.offset
    assert data[offset : offset + 4] == b"\0\0\0\1"
    assert data[:8] == b"\x3f\xf0" + bytes(6)


def test_a_copy_is_shared_and_a_local_one_is_a_ctypes_object(cluster: Any) -> None:
    point = cluster.RawValue(targets.Longer, 1.5, 3, (4, b"abcdef"))
    copied, local = sharedctypes.copy(point), point.local()
    point.x = 9.0
    assert (copied.x, local.x, local.inner.number) == (1.5, 1.5, 4)
    assert isinstance(local, targets.Longer)
    assert bytes(local.inner)[2:8] == b"abcdef"


def test_what_means_nothing_on_another_host_is_refused(cluster: Any) -> None:
    class Union(ctypes.Union):
        _fields_ = [("a", ctypes.c_int)]

    class Bits(ctypes.Structure):
        _fields_ = [("a", ctypes.c_int, 3)]

    class Pointing(ctypes.Structure):
        _fields_ = [("a", ctypes.c_char_p)]

    for kind in (ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), Union, Bits, Pointing, Union * 2, int):
        with pytest.raises(TypeError):
            cluster.Value(kind)
    with pytest.raises(AttributeError, match="no field"):
        cluster.RawValue(targets.Point).nothing = 1
