"""What the site has that no page of docs/ says: the README as its first page, and the commands from their own help.

mkdocs loads this file (``hooks`` in mkdocs.yml) when ``make docs`` builds the site. Builds on typer, which describes a
program in Markdown, on griffe, which reads docstrings, and on the command line of Tacit; nothing made here is written
into docs/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
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


def shown(command: Any) -> Any:
    """A command and all below it as they are to be described: without hidden ones, each list with whole sentences."""
    command.short_help = command.short_help or (command.help or "").strip().partition("\n\n")[0]
    if hasattr(command, "commands"):
        command.commands = {name: shown(one) for name, one in command.commands.items() if not one.hidden}
    return command


def commands() -> str:
    """Every command with its arguments and options."""
    command = shown(get_command(app))
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


def on_page_content(html: str, **_: Any) -> str:
    """mkdocs asks what a page shows: a bar in code is escaped in tables alone, and not for the reader; a drawing, which
    scrolls on a phone, can be reached by keyboard."""
    html = re.sub(r'<p>(?=<img [^>]*\.svg")', '<p tabindex="0">', html)
    return re.sub(r"<td>.*?</td>", lambda cell: cell[0].replace(r"\|", "|"), html, flags=re.DOTALL)


class Apart(griffe.Extension):
    """Docstrings describe some parameters together ("low, high: ..."), which griffe takes for a name and a type."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Each name gets the words of all."""
        if obj.docstring is not None:
            shared = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)
            obj.docstring.value = shared.sub(
                lambda found: "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")),
                obj.docstring.value,
            )
