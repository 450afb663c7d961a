"""What goes beyond the paper: labels, enough, controls, and what has left."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from conftest import save_tiny_qwen2, stream
from tacit import labels
from tacit.agent import Agent, Answered
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.config import GONE, LearnConfig, RecallConfig, Sampling
from tacit.engines.base import Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.run_folder import completed
from tacit.judges.reward_models import RewardModel
from tacit.labels import Evidence
from tacit.memory import Memory, State
from tacit.methods import controls
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.server.learner.process import WorkerSettings
from tacit.tasks.maths import MATHS
from tacit.testbed import reward_model_path

SAMPLING = Sampling(samples=8, max_tokens=48)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return open_bank(str(tmp_path / "bank.sqlite"))


@pytest.fixture(scope="module")
def verifier() -> RewardModel:
    return RewardModel(reward_model_path(), device="cpu")


def agent(backbone: Backbone, bank: Bank, **changes: object) -> Agent:
    settings = {"sampling": SAMPLING, "learning": LearnConfig(steps=4), **changes}
    return Agent(backbone, LocalEngine(backbone), bank, **settings)  # type: ignore[arg-type]


def taught(made: Agent, count: int, seed: int = 5, which: str = "AB") -> list[Answered]:
    """Answer and learn; returns what was answered."""
    answered = made.answer(stream(count, seed, which))
    made.remember(answered, made.learn(answered))
    return answered


# -- controls -------------------------------------------------------------------------------------------------------


def test_the_unlike_control_draws_from_the_less_similar_half(testbed: Backbone, bank: Bank) -> None:
    made = agent(testbed, bank, learning=LearnConfig(steps=1, admit=0.0))
    taught(made, 12)
    asked = made.answer(stream(8, seed=6), use_memory=False)
    active = [bank.get(info.id, "default") for info in bank.find("default", states=[State.ACTIVE])]
    for one, drawn in zip(asked, controls.random_memory(made, asked, unlike=True), strict=True):
        assert drawn is not None
        similarity = sorted((float(memory.key @ one.key), memory.id) for memory in active)
        assert drawn[0] in {name for _, name in similarity[: -(-len(active) // 2)]}


# -- labels ---------------------------------------------------------------------------------------------------------


def responses(*given: tuple[str | None, float]) -> Responses:
    """Samples with these answers and mean log-probabilities."""
    rollouts = tuple(Rollout((1, 2), (p - 0.1, p + 0.1), str(answer), "stop") for answer, p in given)
    answers = tuple(answer for answer, _ in given)
    return Responses(rollouts, rollouts[0], answers, answers[0], MATHS.vote(answers))


def test_a_confident_vote_counts_likelihood() -> None:
    outvoted = responses(("7", -1.0), ("7", -1.0), ("5", -0.1), (None, -2.0))
    label = labels.choose("confident", Evidence.of("?", outvoted, None, (), None))
    assert (
        label.answer == "5" and label.trusted and label.trace and label.trace.text == "5" and label.vote.answer == "7"
    )
    assert labels.choose("zero-shot", Evidence.of("?", outvoted, None, (), None)).answer == "7"
    even = responses(("7", -0.3), ("5", -0.3), ("3", -0.3))  # nobody has half of the weight: the gate decides
    assert not labels.choose("confident", Evidence.of("?", even, None, (), None)).trusted
    silent = responses((None, -0.1), (None, -0.1))
    assert labels.choose("confident", Evidence.of("?", silent, None, (), None)).answer is None


def test_what_is_said_with_the_memory_alone_is_no_label() -> None:
    def said(*answers: str) -> Responses:
        return responses(*((answer, -1.0) for answer in answers))

    own = said("7", "7", "8", "9")
    assert labels.choose("all", Evidence.of("?", own, said("8", "8", "8", "8"), (), None)).answer == "8"
    alone = labels.choose("all", Evidence.of("?", own, said("5", "5", "5", "5"), (), None))
    assert alone.answer == "7" and alone.vote == labels.choose("zero-shot", Evidence.of("?", own, None, (), None)).vote


def test_where_the_recalled_memory_is_enough_nothing_is_learned(
    testbed: Backbone, bank: Bank, verifier: RewardModel
) -> None:
    made = agent(testbed, bank, learning=LearnConfig(steps=6, enough=2.0), verifier=verifier)
    taught(made, 24)
    answered = made.answer(stream(12, seed=6))
    frugal = replace(made, learning=LearnConfig(steps=6))
    results = frugal.learn(answered)
    spared = [result for result in results if "is enough" in result.learned.reason]
    assert spared and all(result.memory is None and not result.learned.steps for result in spared)
    assert all("is enough" not in result.learned.reason for result in made.learn(answered))


def test_a_problem_that_fits_without_a_memory_alone_is_answered_and_not_learned(tmp_path: Path) -> None:
    """The soft prompt needs room too; its lack concerns this one problem."""
    save_tiny_qwen2(tmp_path / "short", max_position_embeddings=220)
    short = Backbone.load(str(tmp_path / "short"), device="cpu")
    made = Agent(
        short,
        LocalEngine(short),
        open_bank(str(tmp_path / "bank.sqlite")),
        sampling=Sampling(samples=2, max_tokens=16),
        learning=LearnConfig(steps=1, rollouts=2, min_votes=0, min_lead=0),
        recalling=RecallConfig(floor=-1.0),
    )
    brief, longer = Problem("brief", "1 + 1?"), Problem("long", "1 + 1? " * 16)
    assert 184 < len(short.encode(longer.text)) <= 204
    answered = [
        replace(one, zero_shot=responses(("2", -1.0), ("2", -1.0)))  # its own random words give no answer
        for one in made.answer([brief, longer])
    ]
    first, second = made.learn(answered)
    assert "too long" not in first.learned.reason and first.learned.steps
    assert second.learned.reason.startswith("too long: ") and second.memory is None
    memory = Memory(
        "m", "default", "p", "p", np.zeros((20, 64), np.float32), answered[0].key, "last", short.fingerprint,
        State.ACTIVE, "", {}, 0.0,
    )  # fmt: skip
    made.bank.add(memory)
    with_room, without = made.answer([brief, longer])
    assert with_room.hit is not None and without.hit is None and without.memory is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: RecallConfig(floor=-2.0),
        lambda: LearnConfig(settled=-1),
        lambda: LearnConfig(init="text"),
        lambda: LearnConfig(enough=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_settings_that_came_later_leave_old_digests_alone() -> None:
    before = LearnConfig(label="zero-shot", min_votes=3, min_lead=2, enough=2.0, distil=0, steps=10)
    assert before.digest() == "8e9f86e6de35"
    assert LearnConfig(enough=0.5).digest() != LearnConfig().digest()


def test_settings_that_left_are_kept_as_they_were_and_refused_where_they_did_something() -> None:
    kept = {"seed": 3, "learn": {**GONE["learn"], "steps": 4}, "recall": {**GONE["recall"], "floor": 0.25}}
    before = LearnConfig(distil=0, steps=4, enough=2.0, settled=0)  # a file that does not say it is older than it
    wanted = {"seed": 3, "learn": asdict(before), "recall": asdict(RecallConfig(floor=0.25))}
    assert completed(kept) == wanted and kept["learn"]["keep"] == "last"
    worker = WorkerSettings.from_json(json.dumps({"bank": "b", **kept}))
    assert worker == WorkerSettings(bank="b", seed=3, learn=before, recall=RecallConfig(floor=0.25))
    for part, name, value in (
        ("learn", "kl", 0.1), ("learn", "rehearse", 2), ("learn", "keep", "best"), ("learn", "init", "text"),
        ("learn", "init", "nearest"), ("learn", "normalise_advantage", True), ("learn", "admit_belief", 0.5),
        ("recall", "k", 2), ("recall", "compose", "average"), ("recall", "use", 0.5),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"^this run used {name} = {value!r}, which this version no longer has;"):
            completed({"learn": {}, **{part: {name: value}}})
    plan = CompareConfig(variants={"old": {"method": "elm", "learn": {"kl": 0.0}}})
    with pytest.raises(ConfigError, match=r"^old: kl did not pay and has left"):
        plan.resolve("old")
    with pytest.raises(ConfigError, match=r"^the label 'renewed' did not pay and has left"):
        LearnConfig(label="renewed")
