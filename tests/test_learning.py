"""Learning: the gradient is right, memories are independent to the bit, and what is learned helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import stream
from tacit import registry
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.gradients import Group
from tacit.learning import Learner, Target, by_reward
from tacit.model.backbone import Backbone
from tacit.model.prompts import EXAMPLE
from tacit.problem import Problem
from tacit.rewards import Attempts
from tacit.seeds import derive
from tacit.tasks.maths import MATHS

SAMPLING = Sampling(max_tokens=48)


def tasks(backbone: Backbone, count: int, seed: int = 5) -> list[Target]:
    """Problems with the vote over eight zero-shot samples, and the first of these that gives its answer."""
    problems = [problem.blind() for problem in stream(count, seed)]
    asked = [
        Request(backbone.encode(p.text), n=8, max_tokens=48, seeds=tuple(derive(0, p.id, k) for k in range(8)))
        for p in problems
    ]
    groups = LocalEngine(backbone).generate(asked)
    votes = [MATHS.vote([MATHS.extract(rollout.text) for rollout in group]) for group in groups]
    traces = [(one.text, dict(zip(vote.agrees[::-1], group[::-1], strict=True)).get(True)) for one, vote, group in
              zip(problems, votes, groups, strict=True)]  # fmt: skip
    return [Target(one, vote, trace=None if trace[1] is None else (trace[0], trace[1]))
            for one, vote, trace in zip(problems, votes, traces, strict=True)]  # fmt: skip


def learner(backbone: Backbone, **changes: object) -> Learner:
    config = LearnConfig(**{"steps": 3, **changes})  # type: ignore[arg-type]
    return Learner(backbone, LocalEngine(backbone), config, SAMPLING, seed=0)


@pytest.mark.parametrize("row_tokens", [1, 20, 30, 16384])
def test_the_gradient_is_the_policy_gradient(tiny: Backbone, row_tokens: int) -> None:
    """The batched, prefix-sharing pass against the textbook formula, one whole sequence at a time."""
    sampling = Sampling(temperature=0.8, max_tokens=12)
    learning = Learner(tiny, LocalEngine(tiny), LearnConfig(row_tokens=row_tokens), sampling, seed=0)
    prompts, groups = [], []
    for index, texts in enumerate([["short"], ["a rather longer question than that", "and one more"]]):
        memory = learning._begin(Target(stream(1)[0], MATHS.vote(["1"])))
        prompts.append(memory.prompt)
        for text in texts:  # the second prompt serves two problems
            rollouts = [
                Rollout(tuple(torch.randint(0, 250, (length,)).tolist()), (), "", "stop")
                for length in (3, 7 + index, 1)
            ]
            groups.append(Group(tiny.encode(text), memory.prompt, rollouts, [0.5, -0.25, -0.25]))
    assert learning._gradients(groups) == set(map(id, prompts))
    for held in prompts:
        prompt = held.detach().clone().requires_grad_(True)
        loss = torch.zeros(())
        for group in groups:
            if group.prompt is not held:
                continue
            total = sum(len(rollout.token_ids) for rollout in group.rollouts)
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
                tokens = torch.tensor(rollout.token_ids)
                embeds = torch.cat([prompt, tiny.embed(torch.cat([group.ids, tokens]))])
                logits = tiny.model(inputs_embeds=embeds[None]).logits[0, len(prompt) + len(group.ids) - 1 : -1]
                logprobs = torch.log_softmax(logits / 0.8, -1).gather(1, tokens[:, None])
                loss = loss - advantage * logprobs.sum() / total
        loss.backward()
        assert held.grad is not None and prompt.grad is not None
        torch.testing.assert_close(held.grad, prompt.grad, atol=1e-6, rtol=1e-4)


def test_batch_of_1_and_of_32_give_identical_memories(testbed: Backbone) -> None:
    todo = tasks(testbed, 32)
    together = learner(testbed, batch=32).learn(todo)
    alone = learner(testbed, batch=1).learn(todo)
    learned = [result for result in together if result.prompt is not None]
    assert len(learned) >= 12
    for one, other in zip(together, alone, strict=True):
        assert one.reason == other.reason
        assert (one.prompt is None) == (other.prompt is None)
        if one.prompt is not None:
            assert np.array_equal(one.prompt, other.prompt)
            assert [step["reward"] for step in one.steps] == [step["reward"] for step in other.steps]


def test_learning_raises_the_reward_and_the_same_seed_repeats_it(testbed: Backbone) -> None:
    todo = tasks(testbed, 16)
    first = learner(testbed, distil=0, steps=10).learn(todo)
    learned = [result for result in first if result.prompt is not None]
    before = np.mean([np.mean([s["reward"] for s in result.steps[:3]]) for result in learned])
    after = np.mean([np.mean([s["reward"] for s in result.steps[-3:]]) for result in learned])
    assert after > before + 0.1
    again = learner(testbed, distil=0, steps=10).learn(todo[:4])
    for one, other in zip(first, again, strict=False):
        assert (one.prompt is None and other.prompt is None) or np.array_equal(one.prompt, other.prompt)  # type: ignore[arg-type]


def test_a_settled_memory_stops_and_makes_room_without_changing_any(testbed: Backbone) -> None:
    todo = tasks(testbed, 8)
    whole = learner(testbed, distil=1, steps=8).learn(todo)
    early = learner(testbed, distil=1, steps=8, settled=1, batch=3).learn(todo)
    alone = learner(testbed, distil=1, steps=8, settled=1, batch=1).learn(todo)
    lengths = set()
    for full, short, single in zip(whole, early, alone, strict=True):
        if short.prompt is None:
            continue
        assert single.prompt is not None and np.array_equal(short.prompt, single.prompt)
        rewards = [step["reward"] for step in full.steps]
        stop = next((step for step in range(1, 8) if rewards[step - 1] == 1.0), 8)
        assert [step["reward"] for step in short.steps] == rewards[:stop]
        assert short.tokens == sum(step["tokens"] for step in full.steps[:stop])
        lengths.add(stop)
    assert 8 in lengths and len(lengths) > 1


def test_the_backbone_is_untouched(testbed: Backbone) -> None:
    before = testbed.checksum()
    learner(testbed).learn(tasks(testbed, 4))
    assert testbed.checksum() == before
    assert all(p.grad is None and not p.requires_grad for p in testbed.model.parameters())


@pytest.mark.parametrize(
    ("answers", "learns"),
    [
        (["1"] * 3 + ["2"], True),
        (["1"] * 8, True),
        (["1"] * 3 + ["2", "3", "4", "5", "6"], True),
        (["1"] * 3 + ["2"] * 3 + ["5", "6"], False),
        (["1"] * 2 + ["3", "4", "5", "6", "7", "8"], True),
        (["1", "3", "4", "5", "6", "7", "8", "9"], False),
        ([None] * 8, False),
        (["1"] * 2 + [None] * 6, True),
        (["1"] + [None] * 7, False),
    ],
)
def test_the_vote_gate(testbed: Backbone, answers: list[str | None], learns: bool) -> None:
    assert (learner(testbed).gate(MATHS.vote(answers)) is None) == learns


def test_groups_without_signal_are_skipped(testbed: Backbone) -> None:
    """A label nobody gives: no reward, no update, not admitted."""
    (task,) = tasks(testbed, 1)
    hopeless = Target(task.problem, MATHS.vote(["987654"] * 8))
    (result,) = learner(testbed).learn([hopeless])
    assert not result.admitted
    assert result.reason == "it never saw a reward"
    assert not any(step["updated"] for step in result.steps)


def test_starts_are_noise_at_the_scale_of_the_embeddings_or_rows_of_these(testbed: Backbone) -> None:
    (task,) = tasks(testbed, 1)
    starts = {
        init: learner(testbed, init=init)._begin(task).prompt.detach().numpy() for init in ("gaussian", "vocabulary")
    }
    assert starts["gaussian"].std() == pytest.approx(testbed.embedding_std, rel=0.05)
    rows = {row.tobytes() for row in testbed.embedding_matrix.numpy()}
    assert all(row.tobytes() in rows for row in starts["vocabulary"])


def test_a_start_from_the_trace_is_the_worked_example_itself(testbed: Backbone) -> None:
    (task,) = tasks(testbed, 1)
    text, trace = task.problem.text, "2 + 3 = 5. \\boxed{5}"
    seen = replace(task, trace=(text, Rollout((), (), trace, "stop")))
    start = learner(testbed, init="trace")._begin(seen).prompt.detach()
    example = testbed.example_ids(text, trace)
    assert example is not None and torch.equal(start, testbed.embed(example))
    shown = testbed.encode("compute 1 + 1", [(text, trace)])
    assert torch.equal(torch.cat([start, testbed.embed(testbed.encode("compute 1 + 1"))]), testbed.embed(shown))
    many = replace(task, trace=(text, Rollout((), (), trace * 9, "stop")))
    long = learner(testbed, init="trace")._begin(many).prompt
    assert len(long) == EXAMPLE
    none = replace(task, trace=None)
    assert len(learner(testbed, init="trace")._begin(none).prompt) == 20  # without one, rows of random tokens


def test_a_memory_that_was_right_from_its_start_is_admitted_if_the_start_knew_the_label(testbed: Backbone) -> None:
    full = [{"reward": 1.0, "updated": False}]
    assert by_reward(LearnConfig(init="trace"), full)[0]
    assert not by_reward(LearnConfig(init="gaussian"), full)[0]
    assert not by_reward(LearnConfig(init="trace"), [{"reward": 0.25, "updated": False}])[0]


def test_steps_on_the_trace_make_it_likelier_and_draw_nothing(testbed: Backbone) -> None:
    todo = [one for one in tasks(testbed, 12) if one.trace is not None]
    before, after = [learner(testbed, distil=distil, steps=1, lr=0.02) for distil in (0, 10)]
    gained = []
    for one, (short, taught) in zip(todo, zip(before.learn(todo), after.learn(todo), strict=True), strict=True):
        assert len(taught.steps) <= 1, "what is seen on the way is no reward"
        if taught.prompt is None or short.prompt is None or one.trace is None:
            assert taught.reason == short.reason
            continue
        said = torch.tensor(one.trace[1].token_ids)
        words = testbed.embed(torch.cat([testbed.encode(one.trace[0]), said]))
        told = []
        for prompt in (short.prompt, taught.prompt):
            with torch.no_grad():
                logits = testbed.model(inputs_embeds=torch.cat([torch.tensor(prompt), words])[None]).logits[0]
            told.append(float(torch.log_softmax(logits[-len(said) - 1 : -1], -1).gather(1, said[:, None]).sum()))
        gained.append(told[1] - told[0])
    assert len(gained) >= 6 and min(gained) > 0
    reward = [[one.steps[0]["reward"] for one in learner.learn(todo) if one.steps] for learner in (before, after)]
    assert np.mean(reward[1]) > np.mean(reward[0]) + 0.1


def test_a_trace_teaches_under_the_problem_as_it_was_shown(testbed: Backbone) -> None:
    """Options are shuffled from sample to sample: the letter of one order is wrong in another."""
    (task,) = tasks(testbed, 1)
    held: list[torch.Tensor] = []
    learning = learner(testbed, distil=1)
    learning._gradients = lambda groups: held.extend(group.ids for group in groups) or set()  # type: ignore[method-assign, func-returns-value]
    assert task.trace is not None
    memory = learning._begin(replace(task, trace=("compute 9 + 9", task.trace[1])))
    memory.prompt.grad = torch.zeros_like(memory.prompt)
    learning._distil([memory])
    assert [ids.tolist() for ids in held] == [testbed.encode("compute 9 + 9").tolist()]


def test_row_norms_are_capped(testbed: Backbone) -> None:
    todo = tasks(testbed, 6)
    for result in learner(testbed, lr=5.0, norm_cap=1.5).learn(todo):
        if result.prompt is not None:
            assert np.linalg.norm(result.prompt, axis=1).max() <= 1.5 * testbed.embedding_norm * 1.0001


def test_controls_are_rewards_that_ignore_the_label() -> None:
    rng = np.random.Generator(np.random.Philox(1))

    def rewarded(name: str, answers: list[str | None], label: str) -> list[float]:
        given: list[float] = registry.get("reward", name)(Attempts(Problem("1", "?"), (), answers, label, MATHS, rng))
        return given

    assert rewarded("format", ["3", None, "4"], "9") == [1.0, 0.0, 1.0]
    flips = rewarded("random", ["9"] * 200, "9")
    assert 60 < sum(flips) < 140
    assert rewarded("majority", ["1/2", "0.5", None, "3"], r"\frac12") == [1.0, 1.0, 0.0, 0.0]


def test_a_reward_of_ones_own_in_a_few_lines(testbed: Backbone) -> None:
    @registry.register("reward", "test-shortness")
    def shortness(attempts: Attempts) -> list[float]:
        return [1.0 / len(answer) if answer else 0.0 for answer in attempts.answers]

    (result,) = learner(testbed, reward="test-shortness").learn(tasks(testbed, 1))
    assert result.steps and 0 < result.steps[0]["reward"] <= 1
    with pytest.raises(ConfigError, match="already a reward"):
        registry.register("reward", "majority")(shortness)
    with pytest.raises(ConfigError, match="no reward 'majorty'; did you mean majority"):
        LearnConfig(reward="majorty")
