"""README and docs say what is there: links, commands with their flags, files, modules, variables.

Builds on the command line's own description; nothing of what the docs mention is run or imported.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tacit import __version__
from tacit.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
GUIDES = ["README.md", "examples/README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md"]
DOCS = [
    *(ROOT / guide for guide in GUIDES),
    *sorted(file for file in (ROOT / "docs").rglob("*.md") if file.parent.name != "log"),
]
LINKED = [*DOCS, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "log").glob("*.md"))]
FOLDERS = ("src", "docs", "tests", "tools", "benchmarks", "deploy")
COMMANDS: Any = get_command(app)
FOREIGN = {
    *("--enable-prompt-embeds", "--logits-processors", "--logprobs-mode", "--no-enable-chunked-prefill"),
    *("--max-model-len", "--enforce-eager"),
}
"""Flags of vLLM's servers, which the docs also mention by themselves."""
NO_MODULES = {"tacit.plugins"}
"""A group of entry points."""

docs = pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)


def anchors(file: Path) -> set[str]:
    """What a heading of a file is called in a link."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spans(text: str) -> list[str]:
    """Code within lines, without what a table escapes."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return [span.replace(r"\|", "|") for span in re.findall(r"`([^`]+)`", plain)]


def lines(text: str) -> list[str]:
    """Lines of code, each with those that continue it and without its comment."""
    joined: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside or line.startswith("    "):
            indent = len(line) - len(line.lstrip())
            if joined and (joined[-1].endswith("\\") or (indent > 4 and re.match(r"\s+\[?--", line))):
                joined[-1] = f"{joined[-1].rstrip(chr(92))} {line.strip()}"
            else:
                joined.append(line.strip())
    return [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in joined]


def options(command: Any) -> set[str]:
    """Flags of a command and of all below it."""
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help", "-h"}, *map(options, getattr(command, "commands", {}).values()))


def meant(words: list[str]) -> list[Any]:
    """The commands that a command line names: several where it has ``list|show``.

    Raises:
        KeyError: one is not there.
    """
    found = [COMMANDS]
    for word in words:
        if not getattr(found[0], "commands", None) or word.startswith(("-", "[")) or not re.match("[a-z]", word):
            break
        found = [found[0].commands[name] for name in word.split("|")]
    return found


def wrong_commands(code: list[str]) -> list[str]:
    """Command lines that name a command or a flag that is not there."""
    wrong = []
    for line in code:
        said = re.search(r"(?:^|bin/)tacit +(\S.*)", line)
        if said is None:
            continue
        try:
            commands = meant(said[1].split())
        except KeyError as error:
            wrong.append(f"{line}: there is no {error}")
            continue
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", said[1]))
        wrong += [f"{line}: there is no {flag}" for flag in flags if not any(flag in options(one) for one in commands)]
    return wrong


@cache
def defined(file: Path) -> dict[str, ast.stmt]:
    """Names on top of a module, of imports too."""
    return named(ast.parse(file.read_text(encoding="utf-8")).body)


def named(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.If):
            names |= named(node.body)
    return names


def exists(dotted: str) -> bool:
    """Whether ``tacit.a.b.Name.method`` is there."""
    place, rest = SRC, dotted.split(".")
    while rest and (place / rest[0]).is_dir():
        place /= rest.pop(0)
    file = place / f"{rest[0]}.py" if rest and (place / f"{rest[0]}.py").is_file() else place / "__init__.py"
    rest = rest[1:] if file.name != "__init__.py" else rest
    names = defined(file)
    for name in rest:
        if name not in names:
            return False
        node = names[name]
        names = named(node.body) if isinstance(node, ast.ClassDef) else {}
    return True


def wrong_names(text: str) -> list[str]:
    """Modules and names of the package that are not there."""
    found = set(re.findall(r"(?<![\w/.-])tacit(?:\.[A-Za-z_]\w*)+(?!\w|/)", text))
    found |= {
        f"{module}.{name.strip()}"
        for module, some in re.findall(r"from (tacit(?:[.]\w+)*) import ([\w, ]+)", text)
        for name in some.split(",")
    }
    return sorted(name for name in found - NO_MODULES if not exists(name))


def wrong_files(text: str) -> list[str]:
    """Files of the repository that are not there."""
    found = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w/?)", text))
    found |= {span for span in spans(text) if re.fullmatch(r"[a-z_]+/[\w/]+\.py", span)}
    return sorted(name for name in found if not any((base / name).exists() for base in (ROOT, SRC / "tacit")))


@pytest.mark.parametrize("file", LINKED, ids=lambda file: file.stem)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), f"{file.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(there), f"{file.name} links to {target}, which is no heading there"


@docs
def test_commands_and_flags_are_there(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert wrong_commands([*spans(text), *lines(text)]) == []
    known = options(COMMANDS) | FOREIGN
    alone = {flag for span in spans(text) for flag in re.findall(r"^--[a-z][a-z-]*", span)}
    assert sorted(alone - known) == []


@docs
def test_modules_and_files_are_there(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert wrong_names(text) == []
    assert wrong_files(text) == []


@docs
def test_variables_are_read(file: Path) -> None:
    read = {f"TACIT_{flag[2:].upper().replace('-', '_')}" for flag in options(COMMANDS)}
    code = [*SRC.rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    read |= {name for part in code for name in re.findall(r'"(TACIT_[A-Z_]+)"', part.read_text(encoding="utf-8"))}
    assert sorted(set(re.findall(r"\bTACIT_[A-Z_]+\b", file.read_text(encoding="utf-8"))) - read) == []


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("CHANGELOG.md", r"^## ([\d.]+) - \d{4}-\d\d-\d\d$"),
        ("CITATION.cff", r'^version: "(.+)"$'),
        ("docs/citation.md", r"^  version = \{(.+)\}"),
    ],
)
def test_the_newest_version_is_said_alike(file: str, said: str) -> None:
    found = re.search(said, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found and found[1] == __version__


def test_what_is_not_there_is_found() -> None:
    block = "    tacit run --data x.jsonl \\\n        --rehearse 2   # as before\n    tacit sudy quality\n"
    assert wrong_commands(lines(block)) == [
        "tacit run --data x.jsonl --rehearse 2: there is no --rehearse",
        "tacit sudy quality: there is no 'sudy'",
    ]
    assert wrong_commands(["tacit study signal|transfer --out DIR", "tacit memories list|shw"]) == [
        "tacit memories list|shw: there is no 'shw'"
    ]
    told = "`tacit.runner`, `tacit.agent.Agent.answer`, `tacit.agent.Agent.ask`; `from tacit import Agent, Agnt`"
    assert wrong_names(told) == ["tacit.Agnt", "tacit.agent.Agent.ask", "tacit.runner"]
    assert wrong_files("`src/tacit/baselines/base.py`, `src/tacit/agent.py`, `server/worker.py`, `server/no.py`") == [
        "server/no.py",
        "src/tacit/baselines/base.py",
    ]


def figures(file: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table after a heading by their first cell, without marks and emphasis."""
    text = (ROOT / file).read_text(encoding="utf-8")
    table = re.search(r"^(\|.*\n)+", text[text.index(heading) :], re.MULTILINE)
    assert table is not None
    rows = [[cell.strip(" *`†‡§") for cell in row.strip("|").split("|")] for row in table[0].splitlines()[2:]]
    return {name: cells for name, *cells in rows}


def test_short_tables_say_what_the_long_ones_say() -> None:
    main = figures("docs/compare.md", "## The testbed's main table")
    real = figures("docs/log/2026-12-01-where-the-model-is-divided.md", "## The demonstration, seeds 1 to 3")

    def cell(accuracy: str, gain: str) -> str:
        return ", ".join(one for one in (accuracy.partition(" /")[0], gain) if one and not one.startswith("+0.0"))

    names = {"zero-shot": ("zero-shot", "zero-shot"), "ICL, nearest trace": ("icl", "ICL, one raw trace")}
    names |= {"vote, equal compute or more": ("majority", "vote of 16, zero-shot"), "Tacit": ("elm", "routed")}
    short = figures("README.md", "## What it measures")
    assert short == {
        name: [*(cell(main[method][at], main[method][at + 2]) for at in (1, 2)), cell(real[arm][3], real[arm][4])]
        for name, (method, arm) in names.items()
    }
    told = figures("docs/method.md", "## How to read the figures")
    for name, (a, b, harm) in told.items():
        method = re.search(r"`(.+)", name)
        row = main[method[1].strip("`)") if method else "zero-shot"]
        learned, _, corrupted = row[5].split(" / ")
        assert [a, b, harm or "0 / 0"] == [*row[1:3], f"{learned} / {corrupted}"], name
    assert len(told) == 4


def test_the_readme_fits_one_screen_and_every_page_begins_with_its_purpose() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90
    for file in DOCS:
        title, blank, purpose = file.read_text(encoding="utf-8").lstrip().split("\n", 2)
        assert title.startswith("# ") and not blank and re.match(r"[A-Z*]", purpose), f"{file.name}: {purpose[:80]}"
