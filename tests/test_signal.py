"""``tacit study signal``: signal is found, what is too hard is left out, and a search goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Tacit
from tacit.config import RunConfig
from tacit.errors import ConfigError, DataError
from tacit.experiments.studies.signal import SignalConfig, ladders, signal, streams, study
from tacit.tasks.families.kind import LEVELS

CONFIG = SignalConfig(
    RunConfig(threads=1),
    ("testbed:A", "families:multiply", "families:halves@2"),
    problems=8,
)


def row(data: str, rate: float, vote: float, task: str = "number") -> dict[str, Any]:
    return {
        "data": data,
        "task": task,
        "pass": {"mean": rate, "low": 0, "high": 1},
        "vote": {"mean": vote},
        "lead": {"mean": vote - rate},
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[str]]:
    out, said = tmp_path_factory.mktemp("signal") / "found", list[str]()
    return study(CONFIG, out, said.append), out, said


def test_a_source_with_signal_is_found_and_what_is_too_hard_left_out(
    found: tuple[dict[str, Any], Path, list[str]],
) -> None:
    result, out, said = found
    cells = {cell["data"]: cell for cell in result["cells"]}
    # The testbed knows no times tables: the first level has nothing right, so that harder ones are not asked.
    assert [*cells] == ["testbed:A", "families:multiply@1", "families:halves@2"]
    assert cells["families:multiply@1"]["pass"] == {"mean": 0, "low": 0, "high": 0, "n": 8}
    known = cells["testbed:A"]
    assert known["signal"] and 0.2 <= known["pass"]["mean"] <= 0.5
    assert known["lead"]["mean"] == pytest.approx(known["vote"]["mean"] - known["pass"]["mean"])
    assert known["pass"]["low"] < known["pass"]["mean"] < known["pass"]["high"] and known["pass"]["n"] == 8
    marks = known["marks"]
    assert known["pass"]["mean"] == pytest.approx(sum(mark["pass"] for mark in marks) / 8)
    assert known["greedy"]["mean"] == pytest.approx(sum(mark["greedy"] for mark in marks) / 8)
    assert result["streams"] == {"maths": "testbed:A"}
    assert len(said) == 3 and said[0].startswith("1: testbed:A: pass 0.")
    assert json.loads((out / "signal.json").read_text())["streams"] == result["streams"]
    assert "| * testbed:A | 8 |" in (out / "signal.md").read_text()


def test_a_search_goes_on_and_measures_nothing_twice(
    found: tuple[dict[str, Any], Path, list[str]], tmp_path: Path
) -> None:
    result, out, _ = found
    lines = (out / "signal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "signal.settings.json").write_text((out / "signal.settings.json").read_text())
    (tmp_path / "signal.jsonl").write_text(lines[0] + lines[1] + lines[2][:40])  # killed while it wrote
    said: list[str] = []
    again = study(CONFIG, tmp_path, said.append)
    assert len(said) == 1 and "families:halves@2" in said[0]
    assert again == result
    assert (tmp_path / "signal.jsonl").read_text() == "".join(lines)


def test_harder_levels_are_asked_on_request(found: tuple[dict[str, Any], Path, list[str]], tmp_path: Path) -> None:
    result = study(replace(CONFIG, data=("families:multiply",), problems=1, every=True), tmp_path)
    assert [cell["data"] for cell in result["cells"]] == [f"families:multiply@{level}" for level in LEVELS]
    assert result["streams"] == {}
    assert "There is none." in (tmp_path / "signal.md").read_text()


def test_a_folder_of_another_search_is_refused_and_a_damaged_one_named(
    found: tuple[dict[str, Any], Path, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"holds a search with other settings \(problems\); give another --out"):
        study(replace(CONFIG, problems=7), found[1])
    (tmp_path / "signal.settings.json").write_text("{")
    with pytest.raises(DataError, match="is damaged; delete it, or give another --out"):
        study(CONFIG, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used as a folder"):
        study(CONFIG, tmp_path / "file" / "below")


def test_figures_of_a_file_that_has_changed_are_refused(tmp_path: Path) -> None:
    data, out = tmp_path / "mine.jsonl", tmp_path / "out"
    data.write_text('{"problem": "compute 2 + 3", "answer": "5"}\n')
    config = replace(CONFIG, data=(str(data),))
    assert study(config, out)["cells"] == study(config, out)["cells"]
    data.write_text('{"problem": "compute 2 + 4", "answer": "6"}\n')
    with pytest.raises(ConfigError, match=r"has figures of other problems than .*mine\.jsonl has now; give another"):
        study(config, out)
    rows = [{k: v for k, v in json.loads(line).items() if k != "of"} for line in (out / "signal.jsonl").open()]
    (out / "signal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study(config, out)  # figures made before problems were noted


def test_each_family_is_in_the_stream_at_the_level_where_the_vote_leads_most() -> None:
    rows = [
        row("families:halves@1", 0.5, 0.7),
        row("families:halves@2", 0.3, 0.7),
        row("families:halves@3", 0.1, 0.9),
        row("families:multiply@2", 0.4, 0.45),
        row("families:sums@1", 0.2, 0.3),
        row("families:reverse@1", 0.3, 0.5, "text"),
        row("mine.jsonl", 0.3, 0.5),
    ]
    assert [one["data"] for one in rows if signal(one, CONFIG)] == [
        *("families:halves@1", "families:halves@2", "families:sums@1", "families:reverse@1", "mine.jsonl")
    ]
    assert streams(rows, CONFIG) == {
        "number": "families:halves@2,sums@1 mine.jsonl",
        "text": "families:reverse@1",
    }


def test_a_family_without_a_level_is_all_of_its_levels() -> None:
    assert ladders(["families:halves,percent@3", "x.jsonl"]) == [
        [f"families:halves@{level}" for level in LEVELS],
        ["families:percent@3"],
        ["x.jsonl"],
    ]


def test_the_command(cli: Tacit, tmp_path: Path) -> None:
    args = ("study", "signal", "--threads", "1", "--out", str(tmp_path / "s"))
    code, out, err = cli(*args, "--problems", "8", "--data", "testbed:A")
    assert code == 0 and out.splitlines()[-1] == "--task maths --data testbed:A"
    assert "1: testbed:A: pass" in err
    for wrong, words in (
        (("--problems", "0"), "--problems must be at least 1, not 0"),
        (("--low", "1.5"), "--low is 1.5; it is a share, from 0 to 1"),
        (("--low", "0.6"), "--low is 0.6 and --high 0.5; no family can be between them"),
        (("--data", "families:nothing"), "there is no family 'nothing'"),
    ):
        code, out, err = cli(*args, *wrong)
        assert (code, out) == (2, "") and words in err
