"""The figures of summary.json against slow, obvious re-implementations, and on rows where the truth is known."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tacit
from tacit.experiments.report import figures, run_figures
from test_metrics_rows import synthetic_rows

unit = st.floats(0, 1, allow_nan=False)


@given(st.lists(unit, min_size=1, max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_bootstrap_means_are_means_of_drawn_problems(values: list[float], seed: int) -> None:
    got = figures.bootstrap_means(np.array(values)[:, None], seed=seed, resamples=50)[:, 0]
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(50, len(values)))
    slow = [math.fsum(values[i] for i in row) / len(values) for row in drawn]
    np.testing.assert_allclose(got, slow, atol=1e-12)


def test_bootstrap_in_chunks_has_the_asked_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_CHUNK", 64)
    means = figures.bootstrap_means(np.linspace(0, 1, 10)[:, None], seed=3, resamples=101)
    assert means.shape == (101, 1)
    assert 0.3 < means.mean() < 0.7


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = (np.arange(400) % 4 == 0).astype(float)
    got = figures.mean_interval(values, seed=5, resamples=10_000)
    half = 1.96 * values.std() / 20
    assert got["mean"] == 0.25
    assert abs(got["low"] - (0.25 - half)) < 0.006  # type: ignore[operator]
    assert abs(got["high"] - (0.25 + half)) < 0.006  # type: ignore[operator]


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        got = figures.mean_interval((rng.random(80) < 0.4).astype(float), seed=trial, resamples=400)
        held += got["low"] <= 0.4 <= got["high"]  # type: ignore[operator]
    assert 180 <= held <= 199


@given(st.lists(unit, min_size=1, max_size=30))
def test_prefix_accuracy(values: list[float]) -> None:
    ends = range(1, len(values) + 1)
    np.testing.assert_allclose(figures.prefix_accuracy(values), [sum(values[:t]) / t for t in ends], atol=1e-12)


@given(st.lists(unit, min_size=1, max_size=30))
@settings(max_examples=25, deadline=None)
def test_prefix_band_stays_between_the_extremes_of_its_prefix(values: list[float]) -> None:
    array = np.array(values)
    low, high = figures.prefix_band(array, seed=1, resamples=200)
    assert np.all(low <= high + 1e-12)
    assert np.all(low >= np.minimum.accumulate(array) - 1e-12)
    assert np.all(high <= np.maximum.accumulate(array) + 1e-12)


def test_prefix_band_agrees_with_the_bootstrap_interval_of_the_whole() -> None:
    values = np.random.default_rng(2).random(200)
    low, high = figures.prefix_band(values, seed=1, resamples=4000)
    whole = figures.mean_interval(values, seed=1, resamples=10_000)
    assert abs(low[-1] - whole["low"]) < 0.005  # type: ignore[operator]
    assert abs(high[-1] - whole["high"]) < 0.005  # type: ignore[operator]


def _slow_mark(row: dict[str, Any], arm: str) -> float:
    return float((row[arm] or row["zero_shot"])["correct"])


def test_accuracy_counts_and_gains_match_a_slow_reference() -> None:
    rows = synthetic_rows(80, seed=4)
    summary = run_figures.summarise(rows, seed=9, resamples=2000)
    for arm in ("zero_shot", "memory", "routed", "icl", "random", "verified"):
        assert summary["arms"][arm]["accuracy"] == pytest.approx(sum(_slow_mark(row, arm) for row in rows) / 80)
        assert summary["arms"][arm]["covered"] == sum(row[arm] is not None for row in rows)
        greedy = sum((row[arm] or row["zero_shot"])["greedy_correct"] for row in rows) / 80
        assert summary["arms"][arm]["greedy"] == pytest.approx(greedy)
    assert summary["arms"]["majority"]["accuracy"] == sum(row["majority"]["correct"] for row in rows) / 80
    assert summary["arms"]["majority"]["greedy"] is None
    gain = [_slow_mark(row, "routed") - _slow_mark(row, "zero_shot") for row in rows]
    assert summary["gain"]["mean"] == pytest.approx(sum(gain) / 80)
    drawn = np.random.default_rng(9).integers(0, 80, size=(2000, 80))
    means = [math.fsum(gain[i] for i in row) / 80 for row in drawn]
    assert summary["gain"]["low"] == pytest.approx(np.quantile(means, 0.025))
    assert summary["gain"]["high"] == pytest.approx(np.quantile(means, 0.975))
    over_icl = sum(_slow_mark(row, "routed") - _slow_mark(row, "icl") for row in rows) / 80
    assert summary["gain_over_icl"]["mean"] == pytest.approx(over_icl)
    assert summary["tokens"] == sum(row["tokens"] for row in rows)
    assert summary["memories"] == sum(row["learned"] is not None for row in rows)
    assert sum(summary["memories_by_state"].values()) == summary["memories"]


def test_pairing_makes_equal_arms_differ_by_exactly_nothing() -> None:
    rows = synthetic_rows(30)
    for row in rows:
        row["routed"] = {**row["zero_shot"], "route": "zero_shot"}
    gain = run_figures.summarise(rows, resamples=200)["gain"]
    assert (gain["mean"], gain["low"], gain["high"]) == (0.0, 0.0, 0.0)


def _row(zero_shot: list[int], memory: list[int], routed: list[int]) -> dict[str, Any]:
    def arm(marks: list[int], **extra: Any) -> dict[str, Any]:
        return {
            "correct": sum(marks) / len(marks),
            "rights": [bool(mark) for mark in marks],
            "majority_correct": sum(marks) * 2 > len(marks),
            "greedy_correct": bool(marks[0]),
            **extra,
        }

    return {"zero_shot": arm(zero_shot), "memory": arm(memory, memory_id="m"), "routed": arm(routed)}


def test_changes_and_router_table_count_what_they_say() -> None:
    rows = [
        _row([0, 0, 1], [1, 1, 1], [1, 1, 1]),  # learned
        _row([1, 1, 0], [0, 0, 0], [0, 0, 0]),  # corrupted
        _row([1, 1, 0], [1, 1, 1], [1, 1, 1]),  # sharpened
        _row([1, 1, 1], [0, 1, 1], [0, 1, 1]),  # blurred
        _row([0, 0, 0], [0, 1, 0], [0, 0, 0]),  # unchanged, and a gain the router missed
    ]
    found = figures.changes((row["zero_shot"], row["routed"]) for row in rows)
    assert [found[key] for key in ("learned", "sharpened", "corrupted", "blurred", "unchanged", "n")] == [1] * 5 + [5]
    assert (found["greedy_learned"], found["greedy_corrupted"]) == (1, 2)
    sampled = figures.router_table((row["zero_shot"], row["memory"], row["routed"]) for row in rows)["sampled"]
    assert (sampled["could_gain"], sampled["gained"]) == (4, 3)
    assert (sampled["could_lose"], sampled["lost"]) == (3, 3)
    assert sum(sampled[key] for key in ("right_right", "right_wrong", "wrong_right", "wrong_wrong")) == 15
    unrecalled = run_figures.summarise([{**rows[0], "memory": None}], resamples=10)
    assert unrecalled["router"]["sampled"]["wrong_right"] == 0


def test_rows_without_gold_are_left_out_and_counted() -> None:
    rows: list[dict[str, Any]] = synthetic_rows(20)
    for row in rows[:5]:
        for arm in ("zero_shot", "memory", "routed", "icl", "random", "verified", "majority"):
            if row[arm]:
                marks = {"correct": None, "greedy_correct": None, "majority_correct": None, "rights": None}
                row[arm] |= {key: value for key, value in marks.items() if key in row[arm]}
        if row["learned"]:
            row["learned"]["label_correct"] = None
    summary = run_figures.summarise(rows, resamples=100)
    assert (summary["problems"], summary["scored"], summary["unscored"]) == (20, 15, 5)
    assert summary["arms"]["routed"]["n"] == 15
    reference = run_figures.summarise(rows[5:], resamples=100)
    assert summary["gain"] == reference["gain"]


def test_arms_that_were_not_run_have_no_figures() -> None:
    rows: list[dict[str, Any]] = synthetic_rows(12)
    for row in rows:
        row["icl"] = row["majority"] = row["random"] = row["verified"] = None
    summary = run_figures.summarise(rows, resamples=100)
    assert summary["arms"]["icl"]["accuracy"] is None
    assert summary["arms"]["icl"]["n"] == summary["arms"]["majority"]["n"] == 0
    assert not {"random", "verified"} & {*summary["arms"], *summary["gains"]}
    assert summary["gain_over_icl"]["mean"] is None


@pytest.mark.parametrize("n", [0, 1, 2])
def test_summaries_of_tiny_runs_are_json_without_nan(n: int) -> None:
    summary = run_figures.summarise(synthetic_rows(n), resamples=50)
    assert json.loads(json.dumps(summary, allow_nan=False))["problems"] == n


def test_same_seed_same_figures() -> None:
    rows = synthetic_rows(25)
    assert run_figures.summarise(rows, seed=3, resamples=300) == run_figures.summarise(rows, seed=3, resamples=300)


def test_retrieval_precision_knows_what_it_cannot_know() -> None:
    rows = [
        {"id": "p", "family": "add", "memory": None},
        {"id": "q", "family": "add", "memory": {"source": "p"}},
        {"id": "r", "family": "max", "memory": {"source": "q"}},
        {"id": "s", "family": "max", "memory": {"source": "of an earlier run"}},
    ]
    assert run_figures.summarise(rows, resamples=10)["retrieval"] == {
        "recalled": 3,
        "known": 2,
        "same_family": 1,
        "precision": 0.5,
    }


def test_reasons_for_no_memory_are_counted_without_their_particulars() -> None:
    rows = [
        {"learned": None, "not_learned": "weak vote: 2 of 8 say 4"},
        {"learned": None, "not_learned": "weak vote: 1 of 8 says 5"},
        {"learned": {"memory_id": "a", "state": "active", "reason": "mean reward: .8"}},
        {"learned": None},
    ]
    counts = run_figures.memory_counts(rows)
    assert counts == {"memories": 1, "memories_by_state": {"active": 1}, "not_learned": {"weak vote": 2, "unknown": 1}}


def test_labels_by_margin_hold_every_label_once() -> None:
    rows = synthetic_rows(100)
    labels = run_figures.summarise(rows, resamples=10)["labels"]
    assert sum(part["n"] for part in labels["by_margin"]) == labels["n"] == sum(r["learned"] is not None for r in rows)
    assert sum(part["right"] for part in labels["by_margin"]) == labels["right"]


def test_no_module_but_scoring_reads_gold_answers() -> None:
    """Invariant 2 of the design: gold answers are never read by anything but the scorer.

    Exempt are the testbed, which writes its own problems and stands below everything that learns, and tasks/sources.py,
    which turns its items into problems; and tasks/regex.py, whose tasks hand the scorer's question on to another one.
    """
    root = Path(next(iter(tacit.__path__)))
    readers = set()
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            attribute = isinstance(node, ast.Attribute) and node.attr == "gold" and isinstance(node.ctx, ast.Load)
            by_name = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "attrgetter")
                and any(isinstance(arg, ast.Constant) and arg.value == "gold" for arg in node.args)
            )
            if attribute or by_name:
                readers.add(path.relative_to(root).as_posix())
    readers = {path for path in readers if not path.startswith("testbed/")}
    assert readers - {"tasks/sources.py", "tasks/regex.py"} <= {"experiments/scoring.py"}
