"""Windows change no answer: one ends before a problem that would recall what another of it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.config import LearnConfig, RunConfig, Sampling
from tacit.experiments.compare import Cell, run_cell
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.run import run
from tacit.recall import strangers

LIMIT = 20
SMALL: dict[str, Any] = {
    "sampling": Sampling(samples=3, max_tokens=40),
    "learn": LearnConfig(distil=3, steps=1, rollouts=3, min_votes=1, min_lead=0, admit=0.0),
}


def rows_of(file: Path, *without: str) -> list[dict[str, Any]]:
    """Rows without what depends on the clock, on the run, or is a mean over a window."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", *without)} for row in found]


def ran(out: Path, window: int, **more: Any) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {**SMALL, "baselines": ("icl", "random"), **more}
    run(RunConfig(data="testbed", limit=LIMIT, seed=3, window=window, out=str(out), threads=1, **settings))
    return rows_of(out / "results.jsonl")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ran(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("window", [5, LIMIT])
def test_a_window_answers_what_windows_of_one_do(tmp_path: Path, alone: list[dict[str, Any]], window: int) -> None:
    for row, wanted in zip(ran(tmp_path / "some", window), alone, strict=True):
        assert (row["icl"] or {}).get("source") == (wanted["icl"] or {}).get("source")
        # The random memory is one of all that are there, whatever it is about.
        assert {**row, "icl": None, "random": None} == {**wanted, "icl": None, "random": None}


def test_whole_windows_do_not(tmp_path: Path, alone: list[dict[str, Any]]) -> None:
    assert any(row["memory"] for row in alone)
    whole = ran(tmp_path / "whole", LIMIT, strict=False)
    assert not any(row["memory"] for row in whole), "nothing was learned before all were answered"


@pytest.mark.parametrize("label", ["elm", "icl", "lag"])
def test_neither_does_a_comparison(tmp_path: Path, label: str) -> None:
    config = CompareConfig(data=("testbed:A",), seeds=(2,), limit=10, window=1, probes=False, threads=1, **SMALL)
    cell, found = Cell(label, "testbed:A", "shuffled", 2), {}
    for name, changed in (
        ("alone", config),
        ("strict", replace(config, window=6)),
        ("whole", replace(config, window=6, strict=False)),
    ):
        assert run_cell(changed, cell, tmp_path / name)["status"] == "done"
        file = cell.folder(tmp_path / name) / "rows.jsonl"
        found[name] = rows_of(file, "tokens_answer", "tokens_learn")
    assert _sources(found["strict"]) == _sources(found["alone"]) != _sources(found["whole"])
    for row, wanted in zip(found["strict"], found["alone"], strict=True):
        assert {**row, "notes": None} == {**wanted, "notes": None}


def _sources(rows: list[dict[str, Any]]) -> list[str | None]:
    """What was shown for each; a baseline's similarity may differ in the last digits of a product."""
    return [row["notes"].get("source") for row in rows]


def _keys(numbers: list[int], dimension: int = 3) -> np.ndarray:
    """Unit keys that are often alike, and sometimes the same."""
    drawn = np.random.default_rng(7).normal(size=(8, dimension))
    keys = drawn[np.array(numbers, dtype=int)]
    return np.ascontiguousarray(keys / np.linalg.norm(keys, axis=1, keepdims=True), dtype=np.float32)


@given(st.lists(st.integers(0, 7), max_size=12), st.lists(st.integers(0, 7), min_size=1, max_size=12), st.floats(-1, 1))
def test_strangers_recall_what_they_would_one_by_one(before: list[int], window: list[int], floor: float) -> None:
    kept, keys = _keys(before), _keys(window)

    def nearest(key: np.ndarray, among: np.ndarray) -> int | None:
        if not len(among) or float((among @ key).max()) < floor:
            return None
        return int(np.argmax(np.round(among @ key, 5)))  # of equal ones the first

    known = [max([floor, *(float(one @ key) for one in kept)]) for key in keys]
    count = strangers(keys, known)
    assert 1 <= count <= len(keys)
    for place in range(count):
        assert nearest(keys[place], np.concatenate([kept, keys[:place]])) == nearest(keys[place], kept)
    if count < len(keys):  # and no fewer than can be
        best = float((keys[:count] @ keys[count]).max())
        assert best > known[count] - 1e-5
