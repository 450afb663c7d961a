"""What a reader of the start page and of a tutorial types, typed: every block of the page in its order, in one folder.

Blocks of ``sh`` are run, blocks with a title are written into the file of that name, and of a block of ``text`` every
line has to begin like a line that was printed before. Builds on bash and on the command line as people have it; beyond
the start page commands of ``tacit`` are forked (commands.py), which saves their imports. What needs a larger model or
longer streams gets the testbed in its place; what sets up an environment is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import commands

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS / "start.md", *sorted((DOCS / "tutorials").glob("*.md"))]
LEFT_OUT = ("source ", "pip install ")
"""What sets up an environment: the tests have one."""
SMALLER = {
    "make demo": "tacit demo --limit 6 --window 3",
    "smollm2": "testbed",
    "families:opposites@2,plurals@2": "testbed:A",
}
SECONDS = 300


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, title and text of every block of a page."""
    found = re.findall(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', page.read_text(encoding="utf-8"), re.M | re.S)
    return [(language, title, text) for language, title, text in found]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Reader:
    """Somebody who does what a page says, in a folder with ``tacit`` and ``python`` on the path.

    Args:
        folder: where they are.
        cold: whether ``tacit`` starts from nothing each time.
    """

    def __init__(self, folder: Path, cold: bool) -> None:
        self.folder = folder
        self.cold = cold
        self.port = free_port()
        self.printed = ""
        self.server: subprocess.Popen[str] | None = None
        path = folder / "bin"
        path.mkdir()
        for name, what in (("tacit", f"{sys.executable} -m tacit"), ("python", sys.executable)):
            (path / name).write_text(f'#!/bin/sh\nexec {what} "$@"\n')
            (path / name).chmod(0o755)
        self.env = os.environ | {"PATH": f"{path}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "120"}

    def here(self, text: str) -> str:
        """A block with what takes less time, and a port that is free."""
        for larger, smaller in SMALLER.items():
            text = text.replace(larger, smaller)
        return text.replace(":8000", f":{self.port}")

    def run(self, script: str) -> None:
        """Type a block's lines; a server goes on in the background."""
        for line in self.here(script).splitlines():
            if line.startswith(LEFT_OUT):
                continue
            if line.startswith("tacit serve"):
                self.serve(line)
                continue
            done = self.typed(line)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            self.printed += done.stdout + done.stderr

    def typed(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line that has been run."""
        if line.startswith("tacit ") and not self.cold and not set(line) & set("|&;<>$`*~\\"):
            with contextlib.chdir(self.folder):
                return commands.ran(*shlex.split(line)[1:], env=self.env)
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    def serve(self, line: str) -> None:
        """Start a server and wait until it answers."""
        log = (self.folder / "serve.log").open("w")
        command = [sys.executable, "-m", "tacit", *line.split()[1:], "--port", str(self.port)]
        self.server = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            assert self.server.poll() is None, (self.folder / "serve.log").read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError("the server did not get ready")

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait()


def unsaid(told: str, printed: str) -> list[str]:
    """Lines of a shown output that begin as nothing that was printed does."""
    return [line for line in told.splitlines() if not re.search(rf"^\W*{re.escape(line.strip())}", printed, re.M)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path, cold=page.stem == "start")
    try:
        for language, title, text in blocks(page):
            if title:
                (tmp_path / title).write_text(reader.here(text))
            elif language == "sh":
                reader.run(text)
            elif language == "text":
                shown = "\n".join(re.split(r" {2,}", line)[0] for line in text.splitlines())
                assert unsaid(shown, reader.printed) == [], reader.printed
            else:
                raise AssertionError(f"{page.name} has a block of {language} without a title")
    finally:
        reader.close()


def test_every_page_has_something_to_type() -> None:
    for page in PAGES:
        assert any(language == "sh" for language, _, _ in blocks(page)), page
    assert unsaid("route\nanswer\nno such line", "answer   92\nroute    agree: 8 of 8\n") == ["no such line"]
