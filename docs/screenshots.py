"""The dashboard's pictures in docs/img: every page of a server that has learned a little, in light and in dark.

    python docs/screenshots.py

Starts ``tacit serve`` on the testbed with a fresh bank, asks it generated problems until it has learned some, opens
every page in headless Chromium (which must be installed; set CHROMIUM for another path than /usr/bin/chromium) and
writes docs/img/serve-PAGE-THEME.png. Takes a few minutes; exits 1 if the browser's console says anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

from tacit.testbed import families

IMAGES = Path(__file__).parent / "img"
BROWSER = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PROBLEMS, AGAIN, CLIENTS = 96, 240, 2
QUIET = 120.0  # seconds that the learner is given


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server and its address."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "tacit", "serve", "--bank", str(folder / "bank.sqlite"), "--port", "0"]
    with log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, text=True)
    for _ in range(900):
        found = re.search(r"http://\S+:\d+", log.read_text())
        if found:
            return process, found[0]
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text()}")


def ask(url: str, problems: list[str], learn: bool = False) -> None:
    """Send problems to the model with memory, a few at a time."""

    def one(problem: str) -> None:
        said = [{"role": "user", "content": problem}]
        body = {"model": "testbed:tacit", "temperature": 0, "messages": said, "tacit": {"learn": learn}}
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, problems))


def pictures(page: Any, url: str, memory: str) -> None:
    """Every page in both themes."""
    places = {"overview": "", "memories": "memories?sort=uses", "memory": f"memories/{memory}", "queue": "queue"}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for name, place in {**places, "ask": "ask"}.items():
            page.goto(f"{url}/#/{place}")
            page.reload()
            page.locator("main :is(table, textarea)").first.wait_for()
            if name == "ask":
                page.get_by_label("Problem").fill("compute 30 + 4 * 5")
                page.get_by_role("button", name="Ask").click()
                page.locator(".answer").nth(1).wait_for()
            page.wait_for_timeout(1500)  # charts are drawn after the tables
            page.screenshot(path=str(IMAGES / f"serve-{name}-{theme}.png"))


def main() -> None:
    """Start, ask, learn, ask again, look."""
    texts = [item.text for item in islice(families.problems("AB", 4), PROBLEMS + AGAIN)]
    with TemporaryDirectory() as folder:
        process, url = started(Path(folder))
        try:
            ask(url, texts[:PROBLEMS], learn=True)
            until = time.monotonic() + QUIET
            while time.monotonic() < until:
                ask(url, texts[PROBLEMS : PROBLEMS + 12])
                time.sleep(5)
            ask(url, texts[PROBLEMS:])
            used = httpx.get(f"{url}/tacit/v1/memories", params={"sort": "uses", "limit": 1}).json()["memories"][0]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1200, "height": 1000})
                said: list[str] = []
                page.on("console", lambda message: said.append(message.text) if message.type != "log" else None)
                page.on("pageerror", lambda error: said.append(str(error)))
                pictures(page, url, used["id"])
                browser.close()
        finally:
            process.terminate()
            process.wait()
    if said:
        raise SystemExit("\n".join(said))


if __name__ == "__main__":
    main()
