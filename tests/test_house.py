"""Data flows one way: lower rooms never import upper ones, nothing goes in a circle, no module outgrows a reader; and
no sentence does."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


house = _tool("house")
words = _tool("words")


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


def test_no_sentence_is_too_long_and_no_word_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert words.main() == 0, capsys.readouterr().out


def test_sentences_are_found_in_text_and_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    page, module = tmp_path / "page.md", tmp_path / "module.py"
    page.write_text(
        "# A head\n\nOne [link](to.md#a) in\ntwo lines. `a b c`\nis code (and this is not said); so.\n\n"
        "```sh\nno words. here\n```\n\n    none here\n\n- A point\n  goes on.\n- Another\n\n"
        "| a cell | b \\| c |\n|---|---|\n"
    )
    said = list(words.sentences(words.paragraphs(page)))
    assert said[:3] == [("page.md:3", "One link in two lines."), ("page.md:3", "x is code ;"), ("page.md:3", "so.")]
    assert [one for _, one in said[3:]] == ["- A point goes on.", "- Another", "a cell", "b \\| c", "---", "---"]
    module.write_text("def f(x):\n    raise ValueError(f'{x} is too ' f'long: {x}, say why')\n")
    assert list(words.sentences(words.messages(module))) == [
        ("module.py:2", "x is too long:"),
        ("module.py:2", "x, say why"),
    ]
    module.write_text('ONE = 1\n"""What it\nis. And why.\n\n    no = code\n\nArgs:\n    a: one\n    b: other\n"""\n')
    said = [one for _, one in words.sentences(words.docstrings(module))]
    assert said == ["What it is.", "And why.", "Args:", "a:", "one", "b:", "other"]
    assert words.EMPTY.search("You can Utilise it") and not words.EMPTY.search("an adjustment of every power")
