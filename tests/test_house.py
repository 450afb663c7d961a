"""Data flows one way: a lower room never imports an upper one, and no module outgrows a reader."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tacit

ROOT = Path(tacit.__file__).parent

# From the ground up; modules of one room may import each other.
ROOMS = [
    ["errors", "threads"],
    ["config", "seeds"],
    ["testbed"],
    ["problems"],
    ["answer", "equivalence", "normalisation"],
    ["cache"],
    ["decoder", "loading", "logprobs"],
    ["fused"],
    ["backbone"],
    ["engines"],
    ["memory"],
    ["bank"],
    ["rewards"],
    ["gradients"],
    ["learning"],
    ["cluster"],
    ["verifiers"],
    ["reward_models"],
    ["routing"],
    ["recall"],
    ["responses"],
    ["labels"],
    ["agent"],
    ["consolidation"],
    ["baselines"],
    ["experiments"],
    ["server"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def room(parts: tuple[str, ...]) -> str:
    name = parts[0].removesuffix(".py")
    return next((r for r in ("cli", "answer") if name.startswith(r)), name)


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative imports hide where a module stands"
            names |= {f"{node.module}.{alias.name}" if node.module == "tacit" else node.module for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("tacit.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    own = room(file.relative_to(ROOT).parts)
    if own in ("__init__", "__main__"):
        return
    for name in imported(file):
        assert LEVEL[room((name,))] <= LEVEL[own], f"{own} imports {name}, which stands above it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_are_small_and_introduce_themselves(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 420
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"
