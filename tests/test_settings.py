"""What a setting may be, and what is said of one that cannot be used."""

from __future__ import annotations

import pytest

from lab.errors import BadSettings
from lab.settings import Settings


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 512 << 20), ("1048576", 1 << 20), ("200M", 200 << 20), ("2G", 2 << 30), ("2048K", 2 << 20), ("1gb", 1 << 30)],
)
def test_a_size_is_a_number_of_bytes_or_of_larger_units(text: str, size: int) -> None:
    assert Settings.from_env({"CROSSHOST_MESSAGE_SIZE": text}).message_size == size


@pytest.mark.parametrize("text", ["0", "-1", "1", "1.5G", "1 M", "1mm", "x", "9" * 20, "1G\n", "٣M"])
def test_a_size_that_cannot_be_used_is_named_with_what_can(text: str) -> None:
    with pytest.raises(
        BadSettings, match=r"CROSSHOST_MESSAGE_SIZE is .* a number of bytes from 1m on, such as 512m or 2g"
    ):
        Settings.from_env({"CROSSHOST_MESSAGE_SIZE": text})


LIMITS = ["CROSSHOST_RUN_PROCESSES", "CROSSHOST_RUN_OUTPUT", "CROSSHOST_PROCESS_MEMORY", "CROSSHOST_PROCESS_FILES"]


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_of_guests_is_off_unless_it_is_set(name: str) -> None:
    field = name.removeprefix("CROSSHOST_").lower()
    assert [getattr(Settings.from_env(env), field) for env in ({}, {name: "0"})] == [0, 0]
    value = "500M" if name in ("CROSSHOST_RUN_OUTPUT", "CROSSHOST_PROCESS_MEMORY") else "500"
    assert getattr(Settings.from_env({name: value}), field) == int(value.rstrip("M")) << 20 * value.endswith("M")


@pytest.mark.parametrize("name", LIMITS[1:])
def test_a_limit_under_which_nothing_could_run_is_refused(name: str) -> None:
    with pytest.raises(BadSettings, match=f"{name} is '1', .* or 0 for no limit"):
        Settings.from_env({name: "1"})
