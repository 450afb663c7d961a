"""Data flows one way: lower rooms never import upper ones, nothing goes in a circle, no module outgrows a reader."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def _house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "tools" / "house.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


house = _house()


def test_imports_go_down() -> None:
    assert house.going_up() == []


def test_nothing_goes_in_a_circle() -> None:
    assert house.circles() == []


def test_the_spine_can_be_read_in_an_hour() -> None:
    top = house.top()
    assert len(top) <= house.TOP_FILES
    assert sum(map(house.lines, top)) <= house.SPINE_LINES


@pytest.mark.parametrize("file", house.files(), ids=lambda file: str(file.relative_to(house.SRC)))
def test_modules_are_small_and_introduce_themselves(file: Path) -> None:
    assert house.lines(file) <= house.MODULE_LINES
    assert ast.get_docstring(ast.parse(file.read_text())), "a module opens with what it is for"
