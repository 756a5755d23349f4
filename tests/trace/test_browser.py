"""The report in a real browser: it is looked at, pointed at, zoomed, and its pictures are those that the docs show."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import lab
from lab.trace.context import Tracing
from producer.html import page as report
from producer.trace.written import whole
from tests import ROOT
from tests.kit.browser import browser, faults, opened
from tests.trace.test_report import compared, sound, trace_of
from tests.trace.theatre import play

PICTURES = ROOT / "docs" / "pictures"
VIEW = "svg.timeline"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> Path:
    """The report of a program in all places; on the cluster a worker is killed, and everywhere a lock is fought for."""
    traces = []
    for place in lab.PLACES:
        tracing = Tracing(cluster if place == "cluster" else lab.get_context(place), "theatre")
        with tracing as traced:
            play(traced)
        assert tracing.trace is not None
        traces.append(tracing.trace)
    path = tmp_path_factory.mktemp("report") / "theatre.html"
    report.write(str(path), whole(traces))
    return path


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of section."""
    path = tmp_path_factory.mktemp("report") / "compared.html"
    report.write(str(path), trace_of(sound()), compared())
    return path


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, chromium: Browser, written: Path) -> Iterator[Page]:
    with opened(chromium, written, dark=request.param == "dark") as found:
        yield found


def lane(page: Page, name: str, place: str = "") -> Any:
    return page.locator(f"{VIEW} .lane", has_text=name).first


def shot(page: Page, name: str, selector: str) -> None:
    """A picture of an element for the docs."""
    keep(page.locator(selector).first.screenshot(), name)


def keep(picture: bytes, name: str) -> None:
    """Keep a picture for the docs, in few colours and small."""
    PICTURES.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(picture))
    few = image.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(PICTURES / f"{name}.png", optimize=True)


def test_every_place_is_there_with_its_lanes_on_one_axis(page: Page) -> None:
    places = page.locator(f"{VIEW} .place").all_text_contents()
    assert places == list(lab.PLACES)
    assert page.locator(VIEW).count() == 1  # one axis
    assert page.locator(f"{VIEW} .lane", has_text="main").count() == 3
    assert page.locator(f"{VIEW} .lane", has_text="Lock 1").count() == 3
    for state in ("run", "wants", "waits", "crowded"):
        assert page.locator(f"{VIEW} .s.{state}").count() > 0, state
    assert page.locator(f"{VIEW} .mark.died").count() >= 1


def test_nothing_is_wrong_with_it_for_who_cannot_see_or_point(page: Page) -> None:
    assert faults(page) == []


@pytest.mark.parametrize("dark", [False, True])
def test_nor_with_the_charts_of_a_comparison(chromium: Browser, all_kinds: Path, dark: bool) -> None:
    with opened(chromium, all_kinds, dark=dark) as page:
        assert faults(page) == []


def test_pointing_at_who_is_blocked_tells_by_whom_and_where(page: Page) -> None:
    data = page.evaluate(
        f"JSON.parse(document.getElementById(document.querySelector('{VIEW}').id + '-data').textContent)"
    )
    index, (start, took) = max(
        ((i, each[:2]) for i, one in enumerate(data["lanes"]) for each in one["slices"] if each[2] == 3),
        key=lambda f: f[1][1],
    )
    at_slice(page, data, index, start + took / 2)
    told = page.locator("#tip").inner_text()
    assert "wants Lock 1" in told
    assert "blocked by" in told
    assert "theatre.py:" in told
    expect(page.locator(f"{VIEW} .chosen")).to_have_attribute("visibility", "visible")


def at_slice(page: Page, data: dict[str, Any], index: int, t: float) -> None:
    """Point at a moment of a lane."""
    page.locator(f"{VIEW} .lane").nth(index).scroll_into_view_if_needed()
    box = page.locator(VIEW).bounding_box()
    assert box
    scale = box["width"] / page.evaluate(f"document.querySelector('{VIEW}').viewBox.baseVal.width")
    x = data["gutter"] + t / data["length"] * data["width"]
    page.mouse.move(box["x"] + x * scale, box["y"] + (data["lanes"][index]["y"] + 9) * scale)


def fight(page: Page) -> None:
    """Look closely at the time in which the hosts' processes fight for the lock, and point at one that is blocked."""
    data = page.evaluate(
        f"JSON.parse(document.getElementById(document.querySelector('{VIEW}').id + '-data').textContent)"
    )
    lanes = data["lanes"]
    last = max(index for index, one in enumerate(lanes) if one["name"] == "Lock 1")
    holds = lanes[last]["slices"]
    page.locator(f"{VIEW} .lane").nth(last).scroll_into_view_if_needed()
    box = page.locator(VIEW).bounding_box()
    assert box
    left, scale = box["x"], box["width"] / page.evaluate(f"document.querySelector('{VIEW}').viewBox.baseVal.width")

    def x(t: float, start: float = 0, end: float = data["length"]) -> float:
        return float(left + (data["gutter"] + (t - start) / (end - start) * data["width"]) * scale)

    start, end = holds[4][0], holds[min(22, len(holds) - 1)][0]
    y = box["y"] + (lanes[last]["y"] + 9) * scale
    page.mouse.move(x(start), y)
    page.mouse.down()
    page.mouse.move(x(end), y, steps=3)
    page.mouse.up()
    seen = window(page)
    seen_end = seen[0] + seen[2]
    middle = seen[0] + seen[2] * 0.7  # the words about it need room on the right
    wants = [
        (index, each) for index, one in enumerate(lanes[:last]) for each in one["slices"]
        if each[2] == 3 and each[0] > seen[0] + seen[2] / 4 and each[0] + each[1] < middle
    ]  # fmt: skip
    if wants:
        index, each = max(wants, key=lambda found: found[1][1])
        page.mouse.move(x(each[0] + each[1] / 2, seen[0], seen_end), box["y"] + (lanes[index]["y"] + 9) * scale)


def window(page: Page) -> list[float]:
    return [float(part) for part in str(page.locator(f"{VIEW} .window").get_attribute("viewBox")).split()]


def test_one_looks_closer_by_buttons_keys_and_dragging_and_back(page: Page) -> None:
    whole_, length = window(page), window(page)[2]
    page.get_by_role("button", name="+", exact=True).first.click()
    assert window(page)[2] == pytest.approx(length / 2)
    page.get_by_role("button", name="all").first.click()
    assert window(page) == pytest.approx(whole_, rel=1e-6)
    box = page.locator(VIEW).bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 70, steps=4)
    page.mouse.up()
    assert window(page)[2] < length / 3
    ticks = page.locator(f"{VIEW} .axis text").all_text_contents()
    assert len(ticks) >= 4
    assert len(set(ticks)) == len(ticks)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="threads").first.click()
    assert window(page)[0] == 0
    assert window(page)[2] < length


def test_the_keys_lead_from_lane_to_lane_and_from_piece_to_piece_and_say_so(page: Page) -> None:
    lanes = page.locator(f"{VIEW} .lane")
    assert page.locator(f'{VIEW} .lane[tabindex="0"]').count() == 1  # one stop of the Tab key, not fifty
    lanes.first.focus()
    page.keyboard.press("ArrowDown")
    expect(lanes.nth(1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    first = page.locator("#spoken").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#spoken").inner_text() != first
    page.keyboard.press("+")
    page.keyboard.press("0")
    assert "ms" in str(lanes.nth(1).get_attribute("aria-label"))


def test_arrows_can_be_switched_off_and_on(page: Page) -> None:
    box = page.get_by_label("starts and ends").first
    arrows = page.locator(f"{VIEW} .arrows.starts-and-ends").first
    assert box.is_checked()
    box.uncheck()
    expect(arrows).to_be_hidden()
    box.check()
    assert "off" not in str(arrows.get_attribute("class"))


def test_no_words_overlap_and_nothing_is_cut_off(chromium: Browser, written: Path, all_kinds: Path) -> None:
    for path in (written, all_kinds):
        with opened(chromium, path) as page:
            assert page.evaluate(OVERLAPS) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


OVERLAPS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg.timeline, svg.chart')) {
    const frame = svg.getBoundingClientRect();
    const all = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    const boxes = all.filter(each => each[1].width);
    boxes.forEach(([words, a], i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 1) found.push('cut: ' + words);
      for (const [others, b] of boxes.slice(i + 1)) {
        const across = a.left < b.right - 1 && b.left < a.right - 1, down = a.top < b.bottom - 4 && b.top < a.bottom - 4;
        if (across && down) found.push(words + ' / ' + others);
      }
    });
  }
  return found;
}"""


def test_it_can_be_read_on_a_narrow_screen_and_on_paper(chromium: Browser, written: Path) -> None:
    with opened(chromium, written, width=420) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # a drawing scrolls by itself
    with opened(chromium, written) as page:
        page.emulate_media(media="print")
        expect(page.locator(".switches").first).to_be_hidden()
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_its_script_all_of_it_is_there(chromium: Browser, written: Path) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    try:
        page = context.new_page()
        page.goto(written.as_uri())
        assert page.locator(f"{VIEW} .s.wants").count() > 0
        assert page.locator(f"{VIEW} .axis text").count() >= 4
    finally:
        context.close()


def test_states_differ_in_shape_where_colours_do_not(chromium: Browser, written: Path) -> None:
    """As somebody sees the legend who sees no colours: no two states are alike."""
    with opened(chromium, written) as page:
        pictures = list[tuple[tuple[int, ...], ...]]()
        for box in page.locator(".legend .states svg").all():
            grey = Image.open(io.BytesIO(box.screenshot())).convert("L")
            rows = [list(grey.crop((0, y, grey.width, y + 1)).tobytes()) for y in range(grey.height)]
            paper = rows[0][0]
            covered = tuple(sum(abs(pixel - paper) > 24 for pixel in row) for row in rows)
            pictures.append((covered, tuple(row[grey.width // 2] // 40 for row in rows)))
    assert len(set(pictures)) == len(pictures) == 7


def test_the_pictures_of_the_docs_are_taken(chromium: Browser, written: Path, all_kinds: Path) -> None:
    with opened(chromium, written, width=1180) as page:
        shot(page, "timeline", VIEW)
    for dark in (False, True):
        with opened(chromium, written, dark=dark, width=1180) as page:
            fight(page)
            top = page.locator(f"{VIEW} .place", has_text="cluster").bounding_box()
            all_ = page.locator(VIEW).bounding_box()
            assert top
            assert all_
            clip = {
                "x": all_["x"],
                "y": top["y"] - 12,
                "width": all_["width"],
                "height": min(all_["y"] + all_["height"] + 64, 900) - top["y"] + 12,
            }
            keep(page.screenshot(clip=clip), f"lock{'-dark' * dark}")  # type: ignore[arg-type]
    with opened(chromium, written, width=1180) as page:
        shot(page, "spent", ".chart")
        shot(page, "legend", ".legend")
    with opened(chromium, all_kinds, width=1180) as page:
        shot(page, "costs", "section:has(#costs) .chart")
    for name in ("timeline", "lock", "lock-dark", "spent", "legend", "costs"):
        assert (PICTURES / f"{name}.png").stat().st_size < 120_000
