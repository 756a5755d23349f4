"""Take the pictures of docs/page.md, in a browser, of a fleet that is started for it: ``python docs/pictures/page.py``.

It needs Debian's chromium, or the one that ``playwright install chromium`` brings.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
LONG_ENOUGH = 40_000
"""Milliseconds after which the last minute has something to show."""


def start(stack: ExitStack, env: dict[str, str], *args: str) -> Any:
    """A command of the producer, ended with the stack."""
    command = [sys.executable, "-m", "producer", *args]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process.stdout


def main() -> None:
    """Start a fleet, a program and the page, and photograph it in both schemes."""
    with ExitStack() as stack:
        env = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        fleet = start(stack, env, "fleet", "--hosts", "3", "--slots", "4")
        for _ in ("CROSSHOST_BROKER_URL", "CROSSHOST_AUTHKEY_FILE"):
            name, _, value = fleet.readline().removeprefix("export ").strip().partition("=")
            env[name] = value
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="example-"))
        start(stack, env, "run", str(shutil.copy(HERE / "page_program.py", f"{folder}/program.py")))
        url = start(stack, env, "page", "--port", "0", "--no-browser").readline().strip()
        play = stack.enter_context(sync_playwright())
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1240, "height": 800})
        tab.goto(url)
        tab.wait_for_selector(".alarm", timeout=60_000)
        tab.wait_for_timeout(LONG_ENOUGH)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            picture = Image.open(io.BytesIO(tab.screenshot(full_page=True)))
            picture.quantize(64).save(HERE / f"page-{scheme}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
