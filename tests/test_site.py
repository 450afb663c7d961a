"""The site of the docs in a real browser: it keeps nobody out and fits a phone, by light and in the dark.

Builds on mkdocs, playwright and axe-core. Every page is opened in all four ways; axe-core looks at it in two, once in
each width and once in each scheme. Pages of the log are alike: each is opened in one way.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from browser import ARGS, barriers, chromium, driver

ROOT = Path(__file__).resolve().parent.parent
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
WAYS = [(width, scheme) for width in WIDTHS for scheme in SCHEMES]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of its requests."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The site as `make docs` builds it, served, and its pages."""
    if importlib.util.find_spec("mkdocs") is None and os.environ.get("CI") != "true":
        pytest.skip("mkdocs is not installed (`make docs` installs it)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.html"))
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", pages=pages)
    server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("way", range(len(WAYS)), ids=[f"{width}-{scheme}" for width, scheme in WAYS])
def test_no_page_keeps_anybody_out(site: SimpleNamespace, way: int) -> None:
    width, scheme = WAYS[way]
    entries = [page for page in site.pages if page.startswith("log/20")]
    pages = [page for page in site.pages if page not in entries] + entries[way :: len(WAYS)]
    assert len(entries) > 50 and {"index.html", "start.html", "log/index.html", "reference/commands.html"} <= {*pages}
    found = []
    with driver()() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: found.append(str(error)))
        for place, name in enumerate(pages):
            page.goto(f"{site.url}/{name}")
            assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            looked = name in entries or (place + WIDTHS.index(width) + SCHEMES.index(scheme)) % 2 == 0
            problems = barriers(page) if looked else []
            found += [f"{name}: {one}" for one in [*problems, *([f"{wider} too wide"] if wider > 0 else [])]]
        browser.close()
    assert found == []
