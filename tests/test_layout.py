"""``docs/layout.md`` is the tree's map."""

from __future__ import annotations

from tests import ROOT
from tests.kit import layout
from tests.test_arrows import ARROWS


def test_the_map_has_every_room_and_module_that_is_there_and_no_other() -> None:
    assert layout.PAGE.read_text() == layout.page(), "write it anew: python -m tests.kit.layout"


def test_the_map_leaves_no_package_out() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/**/__init__.py")}
    tops = {room.partition(".")[0] for room in [*ARROWS, *layout.FREE]}
    assert {name for name in folders if not name.startswith(".")} - tops == set()
