"""``tacit tune``: settings found within a budget and without labels, in a file that ``tacit run`` takes."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Tacit
from tacit.config import LearnConfig, RunConfig, Sampling
from tacit.errors import ConfigError, DataError
from tacit.experiments import trials, tuning
from tacit.experiments.run_folder import read_toml
from tacit.experiments.trials import Budget, trials_file
from tacit.experiments.tuning import as_toml, tune
from tacit.tasks import sources

QUICK = RunConfig(
    data="problems.jsonl", learn=LearnConfig(steps=2, rollouts=4, tokens=4), sampling=Sampling(samples=4), device="cpu"
)
BUDGET = Budget(tokens=100_000)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of problems, some of which the testbed solves now and then."""
    monkeypatch.chdir(tmp_path)
    problems = sources.load("testbed:B", seed=5, limit=24)
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps({"id": one.id, "problem": one.text}) + "\n" for one in problems))
    monkeypatch.setattr(tuning, "MOST", 6)
    return file


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("40000", Budget(40_000)),
        ("40k", Budget(40_000)),
        ("1.5k", Budget(1500)),
        ("15m", Budget(minutes=15)),
        ("2 minutes", Budget(minutes=2)),
        ("0.5 min", Budget(minutes=0.5)),
    ],
)
def test_a_budget_is_tokens_or_minutes(text: str, budget: Budget) -> None:
    assert Budget.read(text) == budget


@pytest.mark.parametrize("text", ["", "0", "much", "-3", "3 hours", "1e9"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give tokens, as in 40000 or 40k, or minutes, as in 15m"):
        Budget.read(text)


def test_a_search_that_was_interrupted_goes_on_and_ends_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune(QUICK, BUDGET, Path("whole.toml"), lambda line: None)
    rows = trials_file(Path("whole.toml")).read_text().splitlines(keepends=True)
    cut = trials_file(Path("again.toml"))
    cut.write_text("".join(rows[: len(rows) // 2]) + rows[len(rows) // 2][:20])  # killed while it wrote a line
    again = tune(QUICK, BUDGET, Path("again.toml"), lambda line: None)
    assert replace(again, spent=whole.spent) == whole and again.spent[0] == whole.spent[0]

    def key(row: str) -> Any:
        held = json.loads(row)
        return {name: value for name, value in held.items() if name != "seconds"}

    assert [key(row) for row in cut.read_text().splitlines()] == [key(row) for row in rows]
    monkeypatch.setattr(trials.Trials, "add", lambda *_, **__: pytest.fail("all trials are there"))
    assert tune(QUICK, BUDGET, Path("whole.toml"), lambda line: None).ways == whole.ways


def test_what_is_found_is_what_the_trials_say(data: Path) -> None:
    told: list[str] = []
    found = tune(QUICK, BUDGET, Path("out.toml"), told.append)
    assert {(arm["lr"], arm["init"]) for arm in found.arms} == {
        (lr, init) for lr in (0.02, 0.006, 0.06) for init in ("gaussian", "vocabulary", "trace")
    }
    rows = [json.loads(line) for line in trials_file(Path("out.toml")).read_text().splitlines()[1:]]
    best = found.arms[0]
    mine = [row for row in rows if row["key"][:3] == ["learn", best["lr"], best["init"]]]
    rewards = [row["rewards"] for row in mine]
    assert best["problems"] == len(rewards)
    assert best["first"] == pytest.approx(sum(one[0] for one in rewards) / len(rewards))
    assert best["last"] == pytest.approx(sum(sum(one[-3:]) / len(one[-3:]) for one in rewards) / len(rewards))
    assert best["with"] == pytest.approx(sum(row["other"] for row in mine) / len(mine))
    assert best["gained"] == best["with"] - best["without"] and "gold" not in json.dumps(rows)
    way = next(one for one in found.ways if "chosen" in told[found.ways.index(one)])
    assert (way["temperature"], way["max_tokens"]) == (found.temperature, found.max_tokens)
    assert found.spent[0] == sum(row["tokens"] for row in rows) and len(found.problems) == 6


def test_what_is_said_is_not_searched_for(data: Path) -> None:
    said = replace(QUICK, learn=replace(QUICK.learn, lr=0.01), sampling=replace(QUICK.sampling, temperature=0.9))
    found = tune(said, BUDGET, Path("out.toml"), lambda line: None)
    assert {arm["lr"] for arm in found.arms} == {0.01} and {way["temperature"] for way in found.ways} == {0.9}
    with pytest.raises(ConfigError, match=r"out.toml.trials.jsonl holds trials with another .*steps"):
        tune(replace(said, learn=replace(said.learn, steps=3)), BUDGET, Path("out.toml"), lambda line: None)


def test_a_budget_that_is_too_small_says_so_and_a_larger_one_goes_on(data: Path) -> None:
    with pytest.raises(ConfigError, match="ended before every learning rate and start was tried"):
        tune(QUICK, Budget(tokens=10), Path("out.toml"), lambda line: None)
    before = trials_file(Path("out.toml")).read_text()
    assert tune(QUICK, BUDGET, Path("out.toml"), lambda line: None).arms
    assert trials_file(Path("out.toml")).read_text().startswith(before)
    data.write_text(data.read_text().replace('"problem": "', '"problem": "now ', 1))
    with pytest.raises(ConfigError, match=r"out.toml.trials.jsonl holds trials with another content; delete it"):
        tune(QUICK, BUDGET, Path("out.toml"), lambda line: None)


def test_too_few_problems_and_nothing_to_learn_from_are_said(data: Path) -> None:
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join(lines[:3]))
    with pytest.raises(
        DataError, match=r"has 3 problems that fit the model with 128 tokens of answer, and 4 are needed"
    ):
        tune(QUICK, BUDGET, Path("few.toml"), lambda line: None)
    data.write_text("".join(lines))
    sure = replace(QUICK, learn=replace(QUICK.learn, min_votes=9))
    with pytest.raises(DataError, match=r"of \d+ votes 0 are confident without being unanimous, and 2 are needed"):
        tune(sure, BUDGET, Path("sure.toml"), lambda line: None)
    with pytest.raises(ConfigError, match=r"2 are needed; the budget of 10 tokens has room for no more: give a larger"):
        tune(sure, Budget(tokens=10), Path("short.toml"), lambda line: None)


def test_with_a_carrier_that_begins_with_zeros_no_start_is_searched_for(data: Path) -> None:
    asked = replace(QUICK, carrier="layers", learn=replace(QUICK.learn, lr=0.02, init=None))
    found = tune(asked, BUDGET, Path("out.toml"), lambda line: None)
    assert len(found.arms) == 1
    # The rate belongs to the carrier, so the file says both.
    assert tomllib.loads(as_toml(asked, found, BUDGET))["carrier"] == "layers"


def test_the_command_writes_a_file_that_run_takes(data: Path, cli: Tacit) -> None:
    small = ("--steps", 1, "--rollouts", 2, "--samples", 4, "--tokens", 4)
    code, out, err = cli("tune", "--data", data, "--budget", "100k", *small, "--lr", "0.02", "--instruction", "")
    assert code == 0, err
    assert "<- chosen" in out and "where the 6 problems of this search are left out" in out
    made = tomllib.loads(Path("tuned.toml").read_text())
    assert made["learn"]["lr"] == 0.02 and len(made["skip"]) == 6 and made["data"] == str(data)
    code, _, err = cli("run", "--config", "tuned.toml", *small, "--baselines", "none", "--out", "out", "--limit", 20)
    assert code == 0, err
    done = [json.loads(line)["id"] for line in Path("out/results.jsonl").read_text().splitlines()]
    assert len(done) == 18 and not {*done} & {*made["skip"]}
    held = json.loads(Path("out/run.json").read_text())
    assert held["skip"] == made["skip"] and held["sampling"]["max_tokens"] == made["sampling"]["max_tokens"]


def test_a_run_that_leaves_everything_out_says_so(data: Path, cli: Tacit) -> None:
    ids = [json.loads(line)["id"] for line in data.read_text().splitlines()]
    Path("none.toml").write_text(f"skip = {json.dumps(ids)}\n")
    code, _, err = cli("run", "--config", "none.toml", "--data", data)
    assert code == 2 and "are to be left out (skip); give more data" in err


def test_texts_of_all_kinds_survive_the_file(tmp_path: Path) -> None:
    said = 'Say "it"\n\\ briefly\x7f\t\u2028é.'
    asked = {"task": "number", "instruction": said, "system": ""}
    arm = {"lr": 0.01, "init": "vocabulary", "problems": 2, "without": 0.5, "first": 0.5, "last": 0.75}
    arm |= {"with": 0.75, "gained": 0.25}
    found = tuning.Tuned(0.7, 24, 0.01, "vocabulary", [], [arm], ['a"b', "c,d"], asked, (1, 1.0))
    (tmp_path / "file.toml").write_text(as_toml(RunConfig(), found, BUDGET), encoding="utf-8")
    held = read_toml(tmp_path / "file.toml")
    assert held["instruction"] == said and held["task"] == "number" and held["skip"] == ['a"b', "c,d"]
    assert held["learn"] == {"lr": 0.01, "init": "vocabulary"}


def test_a_search_replaces_no_file_that_it_did_not_write(cli: Tacit, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("important = 1")
    (tmp_path / "folder").mkdir()
    for there in ("mine.toml", "folder"):
        code, _, err = cli("tune", "--data", "testbed:A", "--budget", "60k", "--out", there)
        assert code == 2 and f"--out {there} is there already" in err
    assert (tmp_path / "mine.toml").read_text() == "important = 1"
