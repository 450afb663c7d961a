"""A page in a real browser: what headless Chromium says of it, at a given width, in light or dark.

``chromium --dump-dom`` needs no Python package. The page stands in a frame of the wanted width, because a window has a
least width; the frame's surroundings measure it once it is loaded. What keeps people out,
axe-core says, by playwright.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --window-size=1400,1000"
).split()

ARGS = ["--no-sandbox", "--disable-gpu"]

MEASURE = r"""
const frame = document.querySelector('iframe');
function measure() {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.querySelectorAll('details').forEach(one => { one.open = true; });
  const images = [...page.images];
  const channel = value => { value /= 255; return value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgb(view.getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let contrast = 99, faintest = '';
  for (const element of page.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const pair = [light(rgb(view.getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + .05) / (pair[1] + .05);
    if (ratio < contrast) { contrast = ratio; faintest = element.outerHTML.slice(0, 200); }
  }
  const links = [...page.querySelectorAll('a[href^="#"]')];
  const ids = [...page.querySelectorAll('[id]')].map(one => one.id);
  const scrolling = [...page.body.querySelectorAll('*')].filter(one =>
    one.scrollWidth > one.clientWidth + 1 && ['auto', 'scroll'].includes(view.getComputedStyle(one).overflowX));
  document.getElementById('found').textContent = JSON.stringify({
    width: view.innerWidth,
    dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
    background: view.getComputedStyle(page.body).backgroundColor,
    overflow: page.documentElement.scrollWidth - view.innerWidth,
    images: images.length,
    broken: images.filter(image => !image.naturalWidth).length,
    silent: images.filter(image => !image.alt.trim()).length,
    contrast, faintest,
    dangling: links.map(one => one.getAttribute('href').slice(1)).filter(id => !ids.includes(id)),
    twice: ids.filter((id, at) => ids.indexOf(id) !== at),
    unreachable: scrolling.filter(one => one.tabIndex < 0 || !one.getAttribute('aria-label')).length,
    scrolling: scrolling.length,
    narrowest: Math.min(...[...page.querySelectorAll('tbody th')].map(one => one.getBoundingClientRect().width)),
  });
}
frame.addEventListener('load', measure);  // the dump waits for it, but for nothing asynchronous
"""


def chromium() -> str:
    """Chromium's path. Without it the test fails in CI (CI=true) and is skipped elsewhere."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "Chromium is not installed (apt-get install chromium): the page was not opened"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def driver() -> Any:
    """Playwright's entry. Without it the test fails in CI (CI=true) and is skipped elsewhere."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("playwright is not installed: the page was not opened in a browser")
    return sync_playwright


def barriers(page: Any) -> list[str]:
    """What axe-core finds on a page of playwright's that keeps somebody out: all that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in grave for node in one["nodes"]]


def examined(file: Path, *, width: int, dark: bool = False) -> list[str]:
    """``barriers`` of a file, with all open that can be opened."""
    executable = chromium()
    with driver()() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        found = barriers(page)
        browser.close()
    return found


def look(page: Path, scratch: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """Open a page and measure it; ``console`` holds what the browser wrote on its console."""
    browser = chromium()
    outer = scratch / "outer.html"
    outer.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>'
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page.read_text())}"></iframe>'
        f'<pre id="found"></pre><script>{MEASURE}</script>',
        encoding="utf-8",
    )
    profile = scratch / f"profile-{width}-{dark}"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [browser, *FLAGS, f"--user-data-dir={profile}", scheme, "--dump-dom"]
    ran = subprocess.run([*command, outer.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    written = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.S)
    assert written and written[1], f"the page was not measured: {ran.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(html.unescape(written[1]))
    found["console"] = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return found
