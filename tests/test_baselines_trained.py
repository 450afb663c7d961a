"""The baselines that train: right gradients on copies, a frozen model that stays frozen, and each method end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import stream
from tacit import registry
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import METER, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.experiments.compare import Cell, run_cell
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.scoring import Truths
from tacit.gradients import Group, policy_loss
from tacit.methods.base import Lesson, Method, Reply, World
from tacit.methods.training import Judged, Policy, Trainer, by_label
from tacit.model.backbone import Backbone
from tacit.model.prompts import Start
from tacit.problem import Problem
from tacit.seeds import generator

STREAM = stream(4, seed=301, which="A")
TRAINING = stream(4, seed=4_000_301, which="A")
SHORT: dict[str, dict[str, Any]] = {
    "instance": {"steps": 3},
    "ttrl": {"epochs": 2, "batch": 3},
    "grpo": {"epochs": 2, "batch": 3},
    "sequential": {"steps": 4},
}
METHODS = [
    *("instance-full", "instance-lora", "ttrl-full", "ttrl-lora", "ttrl-soft"),
    *("grpo-full", "grpo-lora", "grpo-soft", "sequential-full", "sequential-lora"),
]
TRAINABLE = {"full": 574_912, "lora": 56_832, "soft": 20 * 128}


def world(backbone: Backbone, labels: bool = False, **options: Any) -> World:
    return World(
        backbone,
        LocalEngine(backbone),
        seed=301,
        folder=Path(),
        stream=tuple(problem.blind() for problem in STREAM),
        training=tuple(problem.blind() for problem in TRAINING),
        oracle=Truths([*STREAM, *TRAINING]) if labels else None,
        sampling=Sampling(samples=8, max_tokens=48),
        options=options,
    )


def run(backbone: Backbone, name: str, **options: Any) -> tuple[Method, list[Reply], list[Lesson]]:
    """A method on the stream in windows of two."""
    method_class = registry.get("method", name)
    options = {**SHORT[name.partition("-")[0]], **options}
    method = method_class(world(backbone, method_class.uses_labels, **options))
    method.prepare()
    replies: list[Reply] = []
    lessons: list[Lesson] = []
    for start in (0, 2):
        window = [problem.blind() for problem in STREAM[start : start + 2]]
        answered = method.answer(window)
        lessons += method.learn(window, answered) or []
        replies += answered
    return method, replies, lessons


def said(replies: Sequence[Reply]) -> list[tuple[Any, ...]]:
    return [(reply.answers, reply.greedy_answer) for reply in replies]


@pytest.fixture(scope="module")
def plain(testbed: Backbone) -> list[tuple[Any, ...]]:
    """What the frozen model says."""
    return said(registry.get("method", "zero-shot")(world(testbed)).answer(STREAM))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_a_copy_and_says_what_it_spent(
    testbed: Backbone, plain: list[tuple[Any, ...]], name: str
) -> None:
    before, tokens = testbed.checksum(), METER.tokens
    method, replies, lessons = run(testbed, name)
    assert testbed.checksum() == before
    assert not any(parameter.requires_grad for parameter in testbed.model.parameters())
    assert method.trainable == TRAINABLE[name.partition("-")[2]] and method.gradient_steps > 0
    assert METER.tokens > tokens
    assert len(replies) == len(STREAM)
    assert said(method.answer([problem.blind() for problem in STREAM])) != plain
    assert len(lessons) == (0 if method.uses_labels else len(STREAM))
    steps, again = method.gradient_steps, said(method.answer([problem.blind() for problem in STREAM[2:]]))
    assert method.gradient_steps == steps  # answering changes nothing, whatever it trains and throws away
    assert said(method.answer([problem.blind() for problem in STREAM[2:]])) == again
    if not name.startswith("sequential"):  # that one has learned from its last window in between
        assert again == said(replies[2:])


@pytest.mark.parametrize("name", ["instance-full", "ttrl-lora", "grpo-soft", "sequential-lora"])
def test_the_same_seed_gives_the_same_answers(testbed: Backbone, name: str) -> None:
    assert said(run(testbed, name)[1]) == said(run(testbed, name)[1])


@pytest.mark.parametrize("name", ["sequential-full", "sequential-lora", "instance-full", "ttrl-full"])
def test_without_a_learning_rate_it_is_the_frozen_model(
    testbed: Backbone, plain: list[tuple[Any, ...]], name: str
) -> None:
    assert said(run(testbed, name, lr=0.0)[1]) == plain


def test_slot_fits_the_text_of_a_problem_alone(testbed: Backbone, plain: list[tuple[Any, ...]]) -> None:
    before, blind = testbed.checksum(), [problem.blind() for problem in STREAM]
    method = registry.get("method", "slot")(world(testbed, steps=8))
    replies = method.answer(blind)
    assert said(replies) != plain and said(method.answer(blind[2:])) == said(replies[2:])
    assert testbed.checksum() == before and method.trainable == TRAINABLE["soft"]
    ids = testbed.encode(blind[0].text)
    text = Rollout(tuple(ids[1:].tolist()), (0.0,) * (len(ids) - 1), "", "stop")
    start = registry.get("start", "gaussian")(Start(testbed, 20, generator(301, blind[0].id, "init")))
    losses = [
        float(policy_loss(testbed, [Group(ids[:1], p, [text], [1.0])], 1.0)) for p in (start, method._fitted(blind[0]))
    ]
    assert losses[1] < losses[0]
    method.learn(blind, replies)
    assert method.gradient_steps == 8 * len(blind)
    with pytest.raises(ConfigError, match="steps is 0"):
        registry.get("method", "slot")(world(testbed, steps=0)).answer(blind)


def test_problems_refused_by_the_gate_keep_their_answers(testbed: Backbone, plain: list[tuple[Any, ...]]) -> None:
    strict = replace(world(testbed, steps=3), learning=LearnConfig(min_votes=8, min_lead=8))
    for name in ("instance-full", "sequential-full"):
        method = registry.get("method", name)(strict)
        replies = method.answer(STREAM)
        lessons = method.learn(STREAM, replies) or []
        refused = [place for place, lesson in enumerate(lessons) if "vote" in lesson.why or "lead" in lesson.why]
        assert refused and all(said(replies)[place] == plain[place] for place in refused)
        assert not any(lessons[place].kept for place in refused)


@pytest.mark.parametrize("kind", ["full", "lora", "soft"])
def test_the_gradient_is_that_of_a_plain_forward_pass(testbed: Backbone, kind: str) -> None:
    here = world(testbed)
    policy = Policy(kind, here)
    torch.manual_seed(0)
    if kind == "lora":  # B starts at zero, where A has no gradient
        for parameter in policy.parameters:
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    rollouts = [list(one.samples)[:3] for one in policy.respond([problem.blind() for problem in STREAM[:2]])]
    ids = [testbed.encode(problem.text) for problem in STREAM[:2]]
    advantages = [[0.75, -0.5, -0.25], [-0.5, 1.0, -0.5]]
    groups = [Group(ids[g], policy.prompt, rollouts[g], advantages[g]) for g in range(2)]
    got = torch.autograd.grad(policy_loss(policy.backbone, groups, 0.8), policy.parameters, allow_unused=True)

    loss = torch.zeros(())
    for prompt, group, gains in zip(ids, rollouts, advantages, strict=True):
        total = sum(len(rollout.token_ids) for rollout in group)
        for rollout, gain in zip(group, gains, strict=True):
            embeds = policy.backbone.embed(torch.tensor([*prompt.tolist(), *rollout.token_ids]))
            if policy.prompt is not None:
                embeds = torch.cat([policy.prompt, embeds])
            logits = policy.backbone.model(inputs_embeds=embeds[None]).logits[0, -len(rollout.token_ids) - 1 : -1]
            chosen = torch.log_softmax(logits / 0.8, -1).gather(1, torch.tensor(rollout.token_ids)[:, None])
            loss = loss - gain * chosen.sum() / total
    wanted = torch.autograd.grad(loss, policy.parameters, allow_unused=True)
    assert any(gradient is not None and float(gradient.norm()) > 1e-4 for gradient in wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine is not None and theirs is not None
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-6)


def test_steps_raise_the_reward_and_a_reset_undoes_them(testbed: Backbone) -> None:
    here = world(testbed)
    policy = Policy("full", here)
    start = [parameter.detach().clone() for parameter in policy.parameters]
    trainer = Trainer(policy, here, 3e-4, "test")
    labels = {problem.id: str(reply[0][0]) for problem, reply in zip(STREAM, said(_zero(testbed)), strict=True)}
    judge = by_label(here, labels)
    rewards = []
    for turn in range(12):
        rewards.append(np.mean([one.reward for one in trainer.step(here.stream, judge, turn)]))
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.2, rewards
    assert not all(torch.equal(now, then) for now, then in zip(policy.parameters, start, strict=True))
    policy.reset()
    assert all(torch.equal(now, then) for now, then in zip(policy.parameters, start, strict=True))


def _zero(backbone: Backbone) -> list[Reply]:
    return registry.get("method", "zero-shot")(world(backbone)).answer(STREAM)


def test_small_steps_are_not_lost_in_half_precision(tiny_model: Path) -> None:
    backbone = Backbone.load(str(tiny_model), dtype="bfloat16", device="cpu")
    here = replace(world(backbone), sampling=Sampling(max_tokens=8))
    policy = Policy("full", here)
    start = [parameter.detach().clone() for parameter in policy.parameters]
    trainer = Trainer(policy, here, 2e-5, "test")
    for _ in range(10):  # each step is a fraction of what bfloat16 resolves at most weights
        trainer.step(here.stream[:1], lambda problem, answers, rng: Judged([1.0] + [0.0] * (len(answers) - 1)), 0)
    pairs = [(now, then) for now, then in zip(policy.parameters, start, strict=True) if now.ndim == 2][1:-1]
    moved = sum(int((now != then).sum()) for now, then in pairs) / sum(now.numel() for now, _ in pairs)
    assert trainer.steps == 10 and moved > 0.5
    assert all(parameter.dtype == torch.float32 for parameter in Policy("lora", here).parameters)


def test_fewer_rollouts_are_trained_on_than_vote(testbed: Backbone) -> None:
    method, _, lessons = run(testbed, "ttrl-soft", votes=16, epochs=1)
    assert method.gradient_steps > 0 and all(lesson.label is not None for lesson in lessons)


@pytest.mark.parametrize("name", ["grpo-full", "grpo-lora", "grpo-soft"])
def test_a_source_without_training_problems_is_refused(testbed: Backbone, tmp_path: Path, name: str) -> None:
    method = registry.get("method", name)(replace(world(testbed, labels=True), training=()))
    with pytest.raises(ConfigError, match=f"{name} trains on labelled problems that are not in the stream"):
        method.prepare()


def test_a_file_source_fails_with_that_sentence(tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text('{"problem": "compute 3 + 4", "answer": "7"}\n')
    config = CompareConfig(data=(str(data),), methods=("grpo-full",), limit=1, probes=False)
    record = run_cell(config, Cell("grpo-full", str(data), "shuffled", 0), tmp_path / "out")
    assert record["status"] == "failed" and "this source has none" in record["error"] and record["n"] == 1


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("ttrl-full", {"rank": 4}, "has no option rank"),
        ("ttrl-full", {"label": "zero-shot"}, "has no option label"),
        ("ttrl-full", {"lr": "fast"}, "lr is 'fast'; it must be of type float"),
        ("grpo-lora", {"rank": 0}, "rank is 0"),
        ("grpo-full", {"batch": 0}, "batch is 0"),
        ("sequential-full", {"label": "x"}, "use one of answers, verified"),
        ("instance-full", {"steps": -1}, "steps is -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    testbed: Backbone, name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        method = registry.get("method", name)(world(testbed, labels=name.startswith("grpo"), **options))
        method.prepare()


def test_policies_are_of_three_kinds(testbed: Backbone) -> None:
    with pytest.raises(ConfigError, match="use one of full, lora, soft"):
        Policy("ia3", world(testbed))


def test_a_problem_is_not_read_for_its_answer(testbed: Backbone) -> None:
    """Wrong gold answers change nothing that a method without labels does."""
    lied = [Problem(problem.id, problem.text, "-1", problem.family) for problem in STREAM]
    method = registry.get("method", "ttrl-full")(replace(world(testbed, epochs=1), stream=tuple(lied)))
    method.prepare()
    assert said(method.answer(lied)) == said(run(testbed, "ttrl-full", epochs=1, batch=12)[1])
