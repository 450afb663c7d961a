"""The demonstration on real weights: its settings, its vote of as many samples as routing sees, and a little of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Tacit
from tacit.config import LearnConfig, RunConfig, Sampling
from tacit.experiments import real
from tacit.experiments import run as runner
from tacit.tasks.maths import MATHS
from tacit.tasks.sources import load


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_the_vote_is_over_as_many_samples_as_routing_sees(cli: Tacit, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ("--limit", 16, "--window", 4, "--steps", 3, "--samples", 4, "--max-tokens", 32, "--out", out)
    code, said, _ = cli("run", "--data", "testbed:A", *map(str, args), "--baselines", "vote")
    assert code == 0 and "routed over a vote of as many" in said
    rows = rows_of(out)
    seen = {row["id"]: 8 if row["memory"] else 4 for row in rows}
    assert {row["id"]: row["vote"]["n"] for row in rows} == seen and {*seen.values()} == {4, 8}
    alone = [row for row in rows if row["memory"] is None]
    assert all(row["vote"]["answer"] == MATHS.vote(row["zero_shot"]["answers"]).answer for row in alone)
    assert all(row["vote"]["correct"] == row["zero_shot"]["majority_correct"] for row in alone)
    summary = json.loads((out / "summary.json").read_text())
    votes = [row["vote"]["correct"] for row in rows]
    assert summary["arms"]["vote"]["accuracy"] == pytest.approx(sum(votes) / 16)
    routed = [row["routed"]["correct"] for row in rows]
    assert summary["gain_over_vote"]["mean"] == pytest.approx((sum(routed) - sum(votes)) / 16)
    assert "vote of as many samples as routing sees" in (out / "report.html").read_text()


def test_a_run_without_it_has_no_such_field(cli: Tacit, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("run", "--data", "testbed:A", "--limit", "2", "--baselines", "majority", "--out", str(out))[0] == 0
    assert all("vote" not in row for row in rows_of(out))
    assert "gain_over_vote" not in json.loads((out / "summary.json").read_text())


def test_the_command_takes_the_real_weights(cli: Tacit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[RunConfig] = []

    def pretend(config: RunConfig, progress: Callable[..., None], tell: Callable[[str], None]) -> dict[str, Any]:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", pretend)
    monkeypatch.setattr(real, "smollm2", lambda: tmp_path / "smol.gguf")
    assert cli("demo", "--real", "--seed", "4", "--limit", "40", "--out", "d")[0] == 130
    assert cli("demo", "--real")[0] == 130
    first, second = seen
    assert (first.model, first.seed, first.limit, first.out) == (str(tmp_path / "smol.gguf"), 4, 40, "d")
    assert second == replace(first, seed=0, limit=real.demonstration().limit, out="runs/demo-real")


def test_the_stream_is_long_enough_and_of_enough_kinds() -> None:
    config = real.demonstration("any")
    found = load(config.data, limit=config.limit)
    assert len(found) >= 40 and found.task == config.task == "text"
    assert len({problem.family for problem in found}) >= 4
    assert config.verifier == "vote" and config.reward_model is None and config.learn.label != "verified"
    assert {*config.baselines} == {"icl", "random", "vote"}


@pytest.mark.slow
def test_real_weights_answer_and_learn(smollm2_file: Path, tmp_path: Path) -> None:
    config = replace(
        real.demonstration(str(smollm2_file)),
        limit=8,
        window=4,
        out=str(tmp_path / "run"),
        sampling=Sampling(samples=4, temperature=0.7, max_tokens=16),
        learn=LearnConfig(
            tokens=8, steps=2, rollouts=4, lr=0.01, init="vocabulary", label="zero-shot", admit=0.0, enough=2.0
        ),
    )
    summary = runner.run(config)
    assert summary["scored"] == 8 and summary["unanswered"]["share"] < 0.5
    assert summary["memories"] >= 1 and summary["arms"]["memory"]["recalled"] >= 1
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "plots" / "families.png").exists()
    assert {"zero_shot", "icl", "memory", "random", "routed", "vote"} <= {*summary["arms"]}
