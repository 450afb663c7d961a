"""What docs/tasks.md says of tasks: a sentence for each, examples that run as they stand there. And ``tacit tasks``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Tacit
from tacit import registry
from tacit.cli import tasks
from tacit.engines.base import Rollout
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.tasks.number import Number

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
[CLOCK] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[CAPITALS] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PROBLEMS = [{"problem": "compute 99 * 4", "answer": "396"}, {"problem": "compute 12 + 5", "answer": "17"}]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Plug-ins stay in a process; here each test begins without."""
    loaded = set(registry._LOADED)
    yield
    registry._LOADED.intersection_update(loaded)
    for name in {*registry._REGISTERED["task"]} - {*registry.BUILT_IN["task"]}:
        del registry._REGISTERED["task"][name]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in PROBLEMS))
    return file


def test_the_page_has_a_sentence_for_every_task() -> None:
    rows = dict(re.findall(r"^\| `([\w.-]+)[^`|]*` \| (.+) \|$", PAGE, re.MULTILINE))
    rows["toml"] = rows.pop("FILE.toml")
    assert set(rows) >= set(registry.BUILT_IN["task"])
    assert all(sentence.endswith(".") for sentence in rows.values())


def test_tasks_are_listed_a_line_each(cli: Tacit, tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(CLOCK)
    code, out, _ = cli("tasks", "--plugin", str(tmp_path / "clock.py"))
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(registry.BUILT_IN["task"]) + 1
    assert all(len(line) <= 80 and line.endswith(".") for line in lines)
    assert [line.split()[0] for line in lines][:3] == ["maths", "number", "choice[:shuffled]"]
    assert lines[-1].split(maxsplit=1) == ["clock", "A time of day; 3:30 pm is 15:30."]


def test_the_task_of_the_page_runs(cli: Tacit, tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(CLOCK)
    registry.load([tmp_path / "clock.py"])
    task = registry.get("task", "clock")()
    assert [task.extract(text) for text in ("So it is 3:30 PM.", "At 9:05 or 10:10", "12:00 am", "noon")] == [
        *("15:30", "10:10", "00:00", None)
    ]
    assert task.right(["15:30", "03:30", None], task.gold("3:30 p.m.")) == [True, False, False]
    (tmp_path / "clocks.jsonl").write_text('{"problem": "compute 3:30", "answer": "noon"}\n')
    code, out, err = cli(
        *("tasks", "try", "clock", "--plugin", str(tmp_path / "clock.py")),
        *("--data", str(tmp_path / "clocks.jsonl"), "--samples", "2", "--max-tokens", "8"),
    )
    assert code == 0, err
    assert "the reference answer cannot be read: 'noon' is no time of day" in out


def test_trying_shows_prompt_responses_answers_and_vote(cli: Tacit, data: Path) -> None:
    code, out, err = cli("tasks", "try", "number", "--data", str(data), "--samples", "3", "--limit", "1", "--seed", "1")
    assert code == 0, err
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "== problem 1 of 1: " in out and "problem 2" not in out
    assert "-- prompt\n" in out and "compute 99 * 4" in out
    assert [f"-- response {number} of 3" in out for number in (1, 2, 3)] == [True] * 3
    answers = re.findall(r"^   answer: (.+)$", out, re.MULTILINE)
    assert len(answers) == 3 and all(answer == "none" or answer.isdigit() for answer in answers)
    [said] = re.findall(r"^answers found in (\d) of 3 responses$", out, re.MULTILINE)
    assert int(said) == sum(answer != "none" for answer in answers)
    [vote] = re.findall(r"^vote: (.+)$", out, re.MULTILINE)
    [right] = re.findall(r"^reference answer: 396; the vote is (right|wrong)$", out, re.MULTILINE)
    assert (right == "right") is bool(re.search(r"say(?:s)? 396", vote.partition(";")[0]))
    assert [file.name for file in data.parent.iterdir()] == [data.name]  # nothing was made


def test_a_file_is_tried(cli: Tacit, data: Path, tmp_path: Path) -> None:
    (tmp_path / "capitals.toml").write_text(CAPITALS)
    code, out, err = cli("tasks", "try", str(tmp_path / "capitals.toml"), "--data", str(data), "--max-tokens", "8")
    assert code == 0, err
    assert "answers found in 0 of 16 responses" in out
    assert re.search(
        r"^Most responses have no answer \(\d+ of the 16 were cut by --max-tokens\):\s+try\s+another --instruction",
        out,
        re.MULTILINE,
    )
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_vote_is_shown_with_how_many_answers_tie(capsys: pytest.CaptureFixture[str]) -> None:
    for said, many in (
        (["3", "4", "5", "?"], "a tie of 3"),
        (["3", "4", "4", "3"], "a tie of 2"),
        (["?"] * 4, "none of 4"),
    ):
        samples = [Rollout((), (), f"The answer is {one}.", "stop") for one in said]
        tasks._vote(Problem("sum", "2 + 2", "4"), Responses.of(samples, samples[0], Number()))
        out = capsys.readouterr().out
        assert f"vote: {many}" in out and "reference answer: 4" in out
        assert ("the vote is wrong" in out) is (many != "none of 4")


def test_code_is_shown_with_its_indentation(capsys: pytest.CaptureFixture[str]) -> None:
    tasks._show("response", "def f(x):\n\tif x:\n\t\treturn 1\x1b[2J\n")
    assert capsys.readouterr().out == "-- response\n   def f(x):\n       if x:\n           return 1\ufffd[2J\n"


def test_what_is_not_there_is_one_sentence(cli: Tacit, data: Path) -> None:
    code, _, err = cli("tasks", "try", "numbr", "--data", str(data))
    assert code == 2 and "there is no task 'numbr'; did you mean number?" in err
    code, _, err = cli("tasks", "try", "no.toml", "--data", str(data))
    assert code == 2 and "no.toml cannot be read" in err
