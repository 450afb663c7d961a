"""Keys relative to a background, what is found by them by default, and the study that compares kinds of keys."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Tacit
from tacit import assembly
from tacit.bank import Bank
from tacit.config import RecallConfig, RunConfig
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, DataError, ModelError
from tacit.experiments.studies import keys as keys_study
from tacit.experiments.studies.keys import KeysConfig, figures
from tacit.model import keys, presets
from tacit.model.backbone import Backbone
from tacit.model.keys import SHRINKAGE, Background
from tacit.recall import Keys

TEXTS = ["What is 7 times 5?", "What is 9 times 4?", "Name a river in Spain.", "Which word is longest?"]


def states(seed: int, count: int = 12, width: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) * np.geomspace(10, 0.1, width) + 5 * rng.normal(size=width)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_background_whitens_by_its_shrunk_covariance(seed: int) -> None:
    """As if the covariance had been made, shrunk and inverted; with fewer states than dimensions."""
    held, [state] = states(seed), states(seed + 1, 1)
    covariance = np.cov(held.T, bias=True)
    rest = np.trace(covariance) / len(covariance) * SHRINKAGE
    variances, directions = np.linalg.eigh((1 - SHRINKAGE) * covariance + rest * np.eye(len(covariance)))
    off = state - held.mean(0)
    wanted = directions @ (directions.T @ off / np.sqrt(variances)) * np.sqrt(rest)
    np.testing.assert_allclose(Background(held).relative(state), wanted, rtol=1e-6, atol=1e-8)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(-100, 100))
def test_what_all_states_share_does_not_count(seed: int, shift: float) -> None:
    held, [state] = states(seed), states(seed + 1, 1)
    moved = Background(held + shift).relative(state + shift)
    np.testing.assert_allclose(moved, Background(held).relative(state), rtol=1e-6, atol=1e-7)


def test_the_background_is_part_of_the_key() -> None:
    """Other questions are another kind of key: banks hold keys relative to these."""
    digest = hashlib.sha256("\n".join(keys.questions()).encode()).hexdigest()
    assert (len(keys.questions()), digest[:16]) == (65, "d23f3079876f3615")
    assert len(set(keys.questions())) == 65


def test_relative_keys_of_unlike_questions_are_far_apart(tiny: Backbone) -> None:
    """Even of a model with random weights, whose other keys of any two questions are much alike."""
    like, unlike = {}, {}
    for kind in ("relative", "hidden"):
        found = Keys(tiny, kind).of(TEXTS)
        similarity = found @ found.T
        like[kind], unlike[kind] = similarity[0, 1], max(similarity[0, 2], similarity[0, 3], similarity[2, 3])
    assert unlike["relative"] < 0.3 < unlike["hidden"]
    assert like["relative"] > 2 * unlike["relative"] and like["hidden"] < 2 * unlike["hidden"]


def test_the_background_is_read_once_and_gives_the_same_bits(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Keys(tiny, "relative:1").of(TEXTS)
    reads: list[int] = []
    own = Backbone.layer_states
    monkeypatch.setattr(Backbone, "layer_states", lambda self, ids, layer: reads.append(layer) or own(self, ids, layer))
    assert np.array_equal(Keys(tiny, "relative:1").of(TEXTS), first) and reads == [1] * len(TEXTS)
    again = tiny.asked(replace(tiny.template, instruction="Answer briefly."))
    # The prompt's layout does not enter it: the same keys, of a background of its own.
    assert np.array_equal(Keys(again, "relative:1").of(TEXTS[::-1]), first[::-1])
    assert len(reads) == 2 * len(TEXTS) + len(keys.questions())


def test_a_layer_that_is_not_there_or_no_number(tiny: Backbone) -> None:
    with pytest.raises(ModelError, match="no layer 99"):
        Keys(tiny, "relative:99").of(TEXTS)
    with pytest.raises(ConfigError, match="a layer is a number, as in relative:12"):
        RecallConfig(key="relative:two")


def test_a_new_bank_gets_the_models_kind_of_key_and_an_old_one_keeps_its_own(
    tiny: Backbone, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(presets.PRESETS[-1], weights=(0, 10))
    monkeypatch.setattr(presets, "PRESETS", (row,))  # as if it were a pretrained model
    config, engine = RunConfig(model="pretrained"), LocalEngine(tiny)
    assert config.recall.key is None and RecallConfig().floor == 0.5
    new = assembly.build_agent(config, bank, engine, namespace="new")
    assert new.recalling.key == new.recall.config.key == "relative"
    assert assembly.binding(bank, ["new"])["key"] == "relative"
    said = replace(config, recall=RecallConfig(key="last"))
    assert assembly.build_agent(said, bank, engine, namespace="old").recalling.key == "last"
    assert assembly.build_agent(config, bank, engine, namespace="old").recalling.key == "last"
    assert assembly.as_bound(config, bank, ["old"]).recall.key == "last"


def test_what_is_found_and_refused_at_a_floor() -> None:
    """Two families of two directions each: what is like is nearer than what is not, and the floor lies between."""
    directions = np.eye(5)
    families = [name for name in "abcd" for _ in range(4)]
    rng = np.random.default_rng(0)
    made = np.array([directions["abcd".index(name)] * 3 + rng.normal(size=5) * 0.3 for name in families])
    found = np.concatenate([made, directions[4:]])
    found /= np.linalg.norm(found, axis=1)[:, None]
    right = figures(found, families, 0.5)
    assert (right["recalled"], right["own"], right["refused"], right["refused_unlike"]) == (1, 1, 1, 1)
    assert right["nearest"] == 1 and right["n"] == [8 * 4, 8 * 8, 8]
    assert right["fitted"]["refused"] == pytest.approx(0.8, abs=0.02)
    low, high = figures(found, families, -1.0), figures(found[:16], families, 1.1)
    assert (low["recalled"], low["refused"]) == (1, 0)
    assert (high["recalled"], high["own"], high["refused"], high["refused_unlike"]) == (0, 0, 1, None)


def test_the_study_of_keys(tmp_path: Path, cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"problem": text}) + "\n" for text in TEXTS))
    run = RunConfig(data="testbed:B", seed=3)
    result: dict[str, Any] = keys_study.study(KeysConfig(run, ("last", "input"), (str(other),), 48), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "keys.json").read_text()) == json.loads(json.dumps(result))
    last, words = result["keys"]
    assert last["nearest"] > words["nearest"]
    assert last["refused"] < 0.2 and last["fitted"]["floor"] > 0.9  # so a floor of .5 excludes next to nothing
    assert (result["problems"], result["unlike"]) == (48, 4)
    table = (tmp_path / "out" / "keys.md").read_text()
    assert "| last |" in table and "| input |" in table
    with pytest.raises(DataError, match="four families"):
        keys_study.study(KeysConfig(replace(run, data=str(other))), tmp_path / "none")
    code, _, err = cli("study", "keys", "--out", "k", "--data", "testbed:B", "--kinds", "last,lasst")
    assert code == 2 and "did you mean last" in err and not Path("k").exists()
