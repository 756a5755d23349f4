"""Debian's Chromium, driven over its own protocol; nothing of it is downloaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--font-render-hinting=none",
]


def executable() -> str:
    """Where Chromium is.

    Raises:
        RuntimeError: It is not installed.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        raise RuntimeError("There is no Chromium to look at pages with. On Debian: apt-get install -y chromium")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser of a test's own, without a profile."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        env: dict[str, str | float | bool] = {"HOME": home, "PATH": "/usr/bin:/bin"}
        chromium = playwright.chromium.launch(executable_path=executable(), args=OPTIONS, env=env)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(browser: Browser, path: Path, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A file in a window of its own, offline; what the page complains of fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        offline=True,
        reduced_motion="reduce",
    )
    page, complaints, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    try:
        yield page
        assert complaints == []
        assert asked == [path.as_uri()]  # itself, and nothing else
    finally:
        context.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds wrong with a page for people who cannot see, point or tell colours apart."""
    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {fault['help']}: {node['html'][:200]}" for fault in found for node in fault["nodes"][:3]]
