"""The lines of Python on top of README.md, run as they stand there.

Builds on the testbed model alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tacit.memory import State

README = Path(__file__).resolve().parent.parent / "README.md"


def first_block() -> str:
    """The first block of Python in the README."""
    found = re.search(r"^```python\n(.+?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, "README.md has no block of Python"
    return found[1]


def test_the_readme_answers_learns_and_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(first_block(), str(README), "exec"), names)
    agent, [first], [again] = names["agent"], names["first"], names["again"]
    with agent.bank as bank:
        _, [memory] = bank.page(agent.namespace, limit=9)
    assert (memory.state, memory.problem) == (State.ACTIVE, first.problem.text)
    assert first.hit is None and first.memory is None
    assert again.hit.memory_id == memory.id and again.problem.text != memory.problem
    without, recalled = again.zero_shot.vote, again.memory.vote
    assert recalled.answer == str(86 * 3) and recalled.share > without.share
    assert capsys.readouterr().out == f"{without.why} -> {recalled.why}\n"
    assert (tmp_path / "bank.sqlite").is_file()
