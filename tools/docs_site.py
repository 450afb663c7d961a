"""What the site has that no page of docs/ says: the README as its first page, and the commands from their own help.

mkdocs loads this file (``hooks`` in mkdocs.yml) when ``make docs`` builds the site. Builds on typer, which describes a
program in Markdown, and on the command line of Tacit; nothing made here is written into docs/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer.cli
from mkdocs.structure.files import File, Files
from typer.main import get_command

from tacit.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = "<!-- commands -->"
"""Where the commands go in their page."""


def front_page() -> str:
    """The README, with its links as seen from docs/; files that the site has not got are named instead."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')})"
        return found[0] if re.match(r"[a-z]+:|#", target) else text

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, (ROOT / "README.md").read_text(encoding="utf-8"))


def commands() -> str:
    """Every command with its arguments and options."""
    command: Any = get_command(app)
    context = command.make_context("tacit", [], resilient_parsing=True)
    written = typer.cli.get_docs_for_click(obj=command, ctx=context, name="tacit", indent=1)
    return written.split("\n", 1)[1].replace("\\[default", "[default")


def on_files(files: Files, config: Any) -> Files:
    """mkdocs asks which pages there are."""
    files.append(File.generated(config, "index.md", content=front_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs asks what a page says."""
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown
