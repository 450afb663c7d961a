"""Files that are not what they should be: one sentence, and nothing waits or breaks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import Tacit
from tacit.bank import open_bank, restore
from tacit.config import RunConfig
from tacit.errors import BankError, ConfigError, DataError
from tacit.experiments.report import cells, comparison, run, study_tables
from tacit.experiments.run_folder import RunFolder, as_begun, begun

DEEP = "[" * 100_000
ROW = {"position": 0, "zero_shot": {}}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_snapshot_that_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(BankError, match="not a bank"):
        restore(path, str(tmp_path / "bank.db"), force=True)
    assert not (tmp_path / "bank.db").exists()


@pytest.mark.parametrize("held", [DEEP, '{"run_id": "a", "sampling": [], "learn": 1, "recall": "x"}'])
def test_a_damaged_run_says_nothing_of_how_it_was_begun(tmp_path: Path, held: str) -> None:
    (tmp_path / "run.json").write_text(held)
    assert as_begun(RunConfig(out=str(tmp_path))) == RunConfig(out=str(tmp_path))


def test_settings_nested_beyond_reason_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(DEEP)
    with pytest.raises(ConfigError, match=r"run\.json is damaged"):
        RunFolder(tmp_path, {})
    assert begun(RunConfig(out=str(tmp_path))) == RunConfig(out=str(tmp_path))
    with pytest.raises(DataError, match="cannot be read as the settings"):
        run.read_settings(tmp_path / "run.json")


def test_rows_nested_beyond_reason_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(f"{DEEP}\n{json.dumps(ROW)}\n")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        run.read_rows(tmp_path / "results.jsonl")


def test_a_comparison_and_a_study_nested_beyond_reason_are_damaged(tmp_path: Path) -> None:
    cell = tmp_path / "cells/a/b/c"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(DEEP)
    (tmp_path / "table.json").write_text(DEEP)
    for read in (cells.find, comparison.rewrite):
        with pytest.raises(DataError, match="is damaged"):
            read(tmp_path)
    name = next(iter(study_tables.STUDIES))
    (tmp_path / f"{name}.json").write_text(DEEP)
    with pytest.raises(DataError, match="is damaged"):
        study_tables.studies(tmp_path)


def test_a_problem_that_is_there_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(ROW)}\n" * 2)
    with pytest.raises(DataError, match="has a problem twice"):
        run.read_rows(tmp_path / "results.jsonl")
    cell = tmp_path / "cells/a/b/c"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps({"seed": 0}))
    (cell / "probes.jsonl").write_text("")
    row = json.dumps({"position": 0, "correct": 1.0, "greedy_correct": 1.0})
    (cell / "rows.jsonl").write_text(f"{row}\n")
    assert len(cells.find(tmp_path)) == 1
    (cell / "rows.jsonl").write_text(f"{row}\n" * 2)
    with pytest.raises(DataError, match="is damaged"):
        cells.find(tmp_path)


def test_a_run_does_not_go_on_from_rows_that_repeat(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    with open_bank(str(tmp_path / "bank.db")) as bank:
        with folder.commit(bank, "default", [ROW, {**ROW, "position": 1}]):
            pass
        assert len(folder.resume(bank, "default")) == 2
        (tmp_path / "results.jsonl").write_text(f"{json.dumps(ROW)}\n" * 2)
        with pytest.raises(ConfigError, match="lacks or repeats a problem at position 1"):
            folder.resume(bank, "default")
    folder.close()


@pytest.mark.parametrize("args", [
    ["memories", "import", "PIPE", "--bank", "b.db"],
    ["memories", "import", "/dev/zero", "--bank", "b.db"],
    ["memories", "import", "x" * 300, "--bank", "b.db"],
    ["memories", "import", "FOLDER", "--bank", "b.db"],
    ["memories", "list", "--bank", "PIPE"],
    ["memories", "restore", "PIPE", "--bank", "r.db"],
    ["memories", "restore", "x" * 300, "--bank", "r.db"],
    ["keys", "list", "--bank", "PIPE"],
    ["config", "--config", "DEEP"],
    ["run", "--task", "DEEP", "--out", "o", "--limit", "1"],
    ["run", "--plugin", "LOOP", "--out", "o", "--limit", "1"],
    ["run", "--data", "PIPE", "--out", "o", "--limit", "1"],
    ["run", "--data", "/dev/zero", "--out", "o", "--limit", "1"],
], ids=" ".join)  # fmt: skip
def test_what_is_no_file_or_too_deep_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Tacit, args: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    os.mkfifo("folder/tacit.json")
    Path("deep.toml").write_text("a = " + DEEP + "]" * len(DEEP))
    Path("loop.py").symlink_to("loop.py")
    named = {"PIPE": "pipe", "FOLDER": "folder", "DEEP": "deep.toml", "LOOP": "loop.py"}
    code, _, err = cli(*(named.get(word, word) for word in args))
    assert code == 2 and len(err.strip().splitlines()) == 1 and err.startswith("error: "), err
    assert not [held for held in Path().iterdir() if held.suffix == ".db"]
