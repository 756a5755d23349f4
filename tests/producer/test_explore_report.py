"""``producer explore --report`` in a real browser: an order is gone through by buttons and keys, and seen without colours."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests import ROOT
from tests.kit.browser import browser, faults, opened
from tests.producer.test_explore import COUNTER, LOCKS, producer

MANY = """
from multiprocessing import Process, Value

def work(counter):
    counter.value += 1

if __name__ == "__main__":
    counter = Value("i", 0)
    workers = [Process(target=work, args=(counter,)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("<b>", counter.value)
"""
WELL = COUNTER.replace("    for _ in range(2):\n        counter", "    with counter.get_lock():\n        counter")
ROWS = ".steps tbody tr"


def explored(folder: Path, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    return producer("explore", str(folder / "script.py"), *args)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a script, made once."""
    made: dict[str, Path] = {}

    def report(script: str) -> Path:
        if script not in made:
            folder = tmp_path_factory.mktemp("explored")
            done = explored(folder, script, "--report", str(folder / "found.html"), "--limit", "100")
            assert done.returncode == (0 if script == WELL else 1), done.stderr
            assert "found.html: open it in a browser" in " ".join(done.stdout.split())
            made[script] = folder / "found.html"
        return made[script]

    return report


def seen(page: Page) -> int:
    """Steps that are to be seen."""
    cells = page.locator(f"{ROWS} .act .does").all()
    return sum(cell.is_visible() for cell in cells)


def test_the_steps_are_gone_through_by_buttons(chromium: Browser, written: Callable[[str], Path]) -> None:
    with opened(chromium, written(COUNTER)) as page:
        assert page.locator(".steps thead th").all_text_contents() == [
            "step", "main", "Process-1", "Process-2", "shared, afterwards"
        ]  # fmt: skip
        assert seen(page) == page.locator(ROWS).count() == 9
        page.get_by_role("button", name="first").click()
        assert seen(page) == 1
        expect(page.locator(".steps .count")).to_have_text("1 of 9")
        page.get_by_role("button", name="back").click()  # there is nothing before it
        assert seen(page) == 1
        for _ in range(2):
            page.get_by_role("button", name="next").click()
        assert seen(page) == 3
        now = page.locator(f"{ROWS}[aria-current=step]")
        assert now.locator("code").inner_text().split() == ["6", "counter.value", "+=", "1"]
        assert now.locator(".flag.stale").inner_text() == "stale: step 7 changes it"
        assert now.locator(".shared .new").count() == 0  # a read changes nothing
        assert "Process-1, line 6: read counter: 1. stale: step 7" in page.locator("#spoken").inner_text()
        page.get_by_role("button", name="last").click()
        assert seen(page) == 9
        destroys = page.locator(ROWS).nth(7)
        assert destroys.locator(".flag.destroys").inner_text() == "destroys step 7"
        assert destroys.locator(".shared .new").inner_text() == "counter = 2"


def test_the_steps_are_gone_through_by_keys(chromium: Browser, written: Callable[[str], Path]) -> None:
    with opened(chromium, written(LOCKS)) as page:
        page.locator(".steps [role=region]").focus()
        for key, number in (("Home", 1), ("ArrowRight", 2), ("ArrowDown", 3), ("ArrowLeft", 2), ("End", 5)):
            page.keyboard.press(key)
            assert seen(page) == number, key
        assert page.locator(f"{ROWS} .flag.waits").count() == 3
        assert "Process-1 waits for b, held by Process-2" in page.locator("section:has(#circle)").inner_text()


@pytest.mark.parametrize("script", [COUNTER, LOCKS, MANY, WELL], ids=["counter", "locks", "many", "well"])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wrong_with_it_for_who_cannot_see_or_point(
    chromium: Browser, written: Callable[[str], Path], script: str, dark: bool
) -> None:
    with opened(chromium, written(script), dark=dark) as page:
        page.get_by_role("button", name="first").click()
        page.get_by_role("button", name="next").click()
        assert faults(page) == []
    with opened(chromium, written(script), dark=dark, width=420) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_many_workers_share_a_column_and_what_they_print_is_no_markup(
    chromium: Browser, written: Callable[[str], Path]
) -> None:
    with opened(chromium, written(MANY)) as page:
        assert page.locator(".steps thead th").all_text_contents() == ["step", "worker", "shared, afterwards"]
        assert page.locator(f"{ROWS} .act strong").first.inner_text().startswith("Process-")
        assert "<b>" in page.locator("section:has(#outcomes)").inner_text()


def test_where_nothing_is_wrong_an_ordinary_order_is_shown(chromium: Browser, written: Callable[[str], Path]) -> None:
    with opened(chromium, written(WELL)) as page:
        assert page.locator(".verdict.good").count() == 1
        assert "One of them: ends with 2" in page.locator(".steps caption").inner_text()
        assert page.locator(f"{ROWS} .flag").count() == 0


def test_without_its_script_and_on_paper_all_steps_are_there(chromium: Browser, written: Callable[[str], Path]) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    try:
        page = context.new_page()
        page.goto(written(COUNTER).as_uri())
        assert seen(page) == 9
        expect(page.locator(".steps .switches")).to_be_hidden()  # what would do nothing is not offered
    finally:
        context.close()
    with opened(chromium, written(COUNTER)) as page:
        page.get_by_role("button", name="first").click()
        page.emulate_media(media="print")
        assert seen(page) == 9


def test_the_marks_differ_in_shape_where_colours_do_not(chromium: Browser, written: Callable[[str], Path]) -> None:
    with opened(chromium, written(COUNTER)) as page:
        edges = []
        for name in ("stale", "destroys"):
            picture = Image.open(io.BytesIO(page.locator(f"{ROWS} .flag.{name}").screenshot())).convert("L")
            edges.append(picture.crop((6, 1, picture.width - 6, 2)).tobytes())
    stale, destroys = (max(edge) - min(edge) for edge in edges)
    assert stale > 24  # dashes
    assert destroys < 8  # a line


def test_it_is_no_report_of_what_is_played_nor_where_there_is_no_folder(tmp_path: Path) -> None:
    done = explored(tmp_path, COUNTER, "--play", "--report", "x.html")
    assert done.returncode == 2
    assert "leave out one of them" in done.stderr
    done = explored(tmp_path, COUNTER, "--report", str(tmp_path / "nowhere" / "x.html"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_the_picture_of_the_docs_is_taken(chromium: Browser, written: Callable[[str], Path]) -> None:
    with opened(chromium, written(COUNTER), width=1000, height=1000) as page:
        page.get_by_role("button", name="back").click()
        picture = Image.open(io.BytesIO(page.locator("section:has(#steps) .steps").screenshot()))
    few = picture.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(ROOT / "docs" / "pictures" / "steps.png", optimize=True)
    assert (ROOT / "docs" / "pictures" / "steps.png").stat().st_size < 120_000
