"""Settings that fit a model: the scale of its inputs is measured, and what nobody says comes from one table."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig

from random_models import model_of
from tacit.agent import Agent
from tacit.assembly import load_backbone
from tacit.bank import open_bank
from tacit.config import TESTBED, LearnConfig, RunConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.run import run
from tacit.learning import Learner
from tacit.methods.base import World
from tacit.model import presets
from tacit.model.backbone import Backbone
from tacit.model.loading import Inputs
from tacit.model.presets import PRESETS, Preset, briefly, fitting, known, preset_for
from tacit.model.prompts import Template
from tacit.testbed import model_path

MINE = Preset("mine", (), (0, 10), 0.1, "vocabulary", 4, 7, 2, 0.5, 12, 40, "", {"maths": "Answer briefly."})
LOG = Path(__file__).parent.parent / "docs" / "log"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A table in which small models have other settings than the testbed's."""
    monkeypatch.setattr(presets, "PRESETS", (MINE,))
    return MINE


# -- the scale of the inputs ------------------------------------------------------------------------------------------


def test_a_model_that_scales_its_embeddings_is_measured() -> None:
    config = Gemma3TextConfig(
        vocab_size=9000, hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, head_dim=16
    )
    embedding = model_of(config).get_input_embeddings()
    inputs, seen = Inputs(embedding), embedding(torch.arange(9000)).detach()
    assert inputs.changed
    assert inputs.std == pytest.approx(float(seen.std()), rel=1e-5)
    assert inputs.std == pytest.approx(math.sqrt(64) * float(embedding.weight.detach().std()), rel=1e-5)
    assert inputs.norm == pytest.approx(float(seen.norm(dim=1).mean()), rel=1e-5)
    assert torch.allclose(inputs.mean(), seen.mean(0), atol=1e-6)


def test_a_model_that_does_not_keeps_its_bits(testbed: Backbone) -> None:
    matrix = testbed.model.get_input_embeddings().weight
    assert testbed.embedding_std == float(matrix.float().std())
    assert testbed.embedding_norm == float(matrix.float().norm(dim=1).mean())
    assert torch.equal(testbed.embedding_mean, matrix.float().mean(0))


def test_starts_and_keys_have_the_scale_that_the_model_sees(testbed: Backbone) -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 8 * super().forward(ids)

    model = copy.deepcopy(testbed.model)
    old = model.get_input_embeddings()
    model.set_input_embeddings(Scaled(*old.weight.shape, _weight=old.weight))
    scaled = Backbone(model, testbed.tokenizer, testbed.template, weights_digest="0" * 64, lean=False)
    assert scaled.embedding_std == pytest.approx(8 * testbed.embedding_std)
    assert scaled.embedding_norm == pytest.approx(8 * testbed.embedding_norm)
    assert torch.allclose(scaled.embedding_mean, 8 * testbed.embedding_mean, atol=1e-5)
    assert fitting(scaled)["lr"] == pytest.approx(8 * TESTBED["lr"], rel=0.05)


# -- the table --------------------------------------------------------------------------------------------------------


def test_every_row_that_was_measured_names_its_entry() -> None:
    assert [one.measured for one in PRESETS if one.measured]
    for one in PRESETS:
        assert not one.measured or (LOG / f"{one.measured}.md").is_file(), one.name


@pytest.mark.parametrize(
    ("family", "weights", "name"),
    [
        ("qwen3", 574_912, "testbed"),
        ("llama", 134_515_008, "smollm2-135m"),
        ("gemma3_text", 134_515_008, "other"),
        ("qwen2", 7_600_000_000, "other"),
    ],
)
def test_a_model_is_known_by_what_it_is(family: str, weights: int, name: str) -> None:
    assert preset_for(family, weights).name == name


@pytest.mark.parametrize("name", ["testbed", "testbed:C", str(model_path())])
def test_the_testbed_has_what_it_always_had(name: str) -> None:
    assert fitting(Backbone.load(name, device="cpu", template=Template(""))) == TESTBED


@pytest.mark.parametrize(
    ("instruction", "short"),
    [
        ("Answer briefly.", True),
        ("Answer with the letter alone.", True),
        ('Please reason step by step, and end with "The answer is" and the number alone.', False),
        ("Write the function in Python. Give the function alone, in one ```python block.", False),
        ("", False),
    ],
)
def test_the_prompt_says_how_long_answers_are(testbed: Backbone, mine: Preset, instruction: str, short: bool) -> None:
    assert briefly(instruction) is short
    asked = testbed.asked(Template(instruction))
    assert fitting(asked)["max_tokens"] == (mine.brief if short else mine.worked)


def test_an_answer_leaves_room_in_the_context(testbed: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "PRESETS", (replace(MINE, worked=100_000),))
    assert fitting(testbed)["max_tokens"] == testbed.context // 2


# -- what is said wins, and what is unsaid is filled in everywhere ----------------------------------------------------


def test_an_agent_a_learner_and_a_method_have_what_fits(
    testbed: Backbone, engine: LocalEngine, tmp_path: Path, mine: Preset
) -> None:
    with open_bank(str(tmp_path / "bank.sqlite")) as bank:
        agent = Agent(testbed, engine, bank, learning=LearnConfig(init="gaussian"))
    assert (agent.learning.lr, agent.learning.init) == (0.013, "gaussian")  # the second one is said
    assert (agent.sampling.temperature, agent.sampling.max_tokens, agent.sampling.samples) == (0.5, 40, 8)
    assert (
        agent.learning.digest()
        == LearnConfig(lr=0.013, init="gaussian", distil=4, steps=7, settled=2).digest()
        != LearnConfig().digest()
    )
    assert agent.learner.config == agent.learning and agent.responder.sampling == agent.sampling
    learner = Learner(testbed, engine, LearnConfig(), Sampling(max_tokens=7), seed=0)
    assert (learner.config.lr, learner.sampling.temperature, learner.sampling.max_tokens) == (0.013, 0.5, 7)
    world = World(testbed, engine, 0, tmp_path)
    assert (world.learning.init, world.responder.sampling.max_tokens) == ("vocabulary", 40)


def test_what_is_unsaid_is_the_testbeds_in_digests() -> None:
    assert LearnConfig().digest() == LearnConfig(lr=TESTBED["lr"], init=TESTBED["init"]).digest()
    assert Sampling().payload() == Sampling(temperature=1.0, max_tokens=64).payload()
    assert known(RunConfig()).learn.lr == TESTBED["lr"] and known(RunConfig(model="x")).learn.lr is None
    held: dict[str, Any] = CompareConfig().settings("elm")
    assert held["learn"]["lr"] == TESTBED["lr"] and held["sampling"]["max_tokens"] == TESTBED["max_tokens"]


def test_a_run_records_and_continues_what_was_chosen(tmp_path: Path, mine: Preset, monkeypatch: Any) -> None:
    config = RunConfig(
        model=str(model_path()),
        out=str(tmp_path / "out"),
        limit=1,
        baselines=(),
        sampling=Sampling(samples=2),
        learn=LearnConfig(steps=1, rollouts=2),
        instruction="",
        device="cpu",
    )
    told: list[str] = []
    run(config, tell=told.append)
    held = json.loads((tmp_path / "out/run.json").read_text())
    assert (held["learn"]["lr"], held["sampling"]["temperature"]) == (0.013, 0.5)
    assert "lr 0.013" in told[0] and "preset mine (not measured on this model)" in told[0]
    monkeypatch.setattr(presets, "PRESETS", (replace(MINE, lr=0.5, worked=8),))  # a later version knows better
    run(replace(config, limit=2))
    assert json.loads((tmp_path / "out/run.json").read_text())["learn"]["lr"] == 0.013


def test_a_preset_may_ask_in_its_own_words(mine: Preset) -> None:
    path = str(model_path())
    assert load_backbone(RunConfig(model=path, device="cpu")).template.instruction == "Answer briefly."
    assert load_backbone(RunConfig(model=path, device="cpu", instruction="so")).template.instruction == "so"
    assert load_backbone(RunConfig(model=path, device="cpu"), unsaid="").template.instruction == ""
    assert load_backbone(RunConfig(device="cpu")).template.instruction == ""  # the testbed is asked as it was trained
