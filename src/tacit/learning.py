"""Learning: concurrent GRPO on soft prompts, many memories in one batch. The heart of the method.

Builds on backbone, the engine, the task, rewards and gradients. For every problem (method.md, "Creation"): sample a
group of rollouts under its soft prompt and reward those that give the label. Then take one policy-gradient step on the
soft prompt alone (gradients.py), with advantages A_i = r_i - mean(r). Before, ``distil`` steps make the response
likelier that gave the label when the problem was answered: it is there already, so they need no rollouts.

One step per group of fresh rollouts keeps it on-policy: the importance ratio is 1, so there is no old policy, no
clipping (whose bias has passed for learning, arXiv 2506.10947), and no division by the deviation. The backbone has no
gradients. Every memory has its own prompt, Adam state, gradient clip and random numbers: what else is in the batch
changes nothing; the group's prompt is computed once and its gradient summed in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit import registry
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Engine, Request, Rollout
from tacit.gradients import Group, advantages, cap, descend, prompt_gradients
from tacit.model.backbone import Backbone
from tacit.model.presets import fitted
from tacit.model.prompts import Start
from tacit.problem import Problem
from tacit.registry import register
from tacit.rewards import Attempts
from tacit.seeds import derive, generator
from tacit.tasks.base import Task, Vote
from tacit.tasks.maths import MATHS


@dataclass(frozen=True)
class Target:
    """One problem to learn from.

    Attributes:
        problem: blind.
        vote: over its answers: gate and, for fixed labels, the label.
        label: decided by better evidence than the vote, which then neither gates nor labels; None for the vote's.
        refusal: why there is nothing to learn here, if so.
        trace: the problem as it was shown, and a response to it that gives the label; None if there is none.
    """

    problem: Problem
    vote: Vote
    label: str | None = None
    refusal: str | None = None
    trace: tuple[str, Rollout] | None = None


@dataclass(frozen=True)
class Learned:
    """What learning one problem gave.

    Attributes:
        prompt: float32 [K, d], or None if the problem was skipped.
        admitted: whether it passed the admission rule.
        reason: why it was admitted, rejected or skipped, in one sentence.
        label: what the last step rewarded.
        steps: per step: reward (mean of the group), label, share, norm (mean row norm in embedding norms), grad_norm,
            updated, tokens, seconds.
        tokens: tokens generated in all.
        distilled: steps on the response that gave the label.
    """

    problem: Problem
    prompt: np.ndarray | None
    admitted: bool
    reason: str
    label: str | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    distilled: int = 0


@dataclass(eq=False)
class Live:
    """A memory being learned; ``settled`` counts the latest steps in which every rollout earned the full reward;
    ``distilled`` its steps on the response that gave its label."""

    target: Target
    ids: Tensor
    prompt: Tensor
    optimizer: torch.optim.Adam
    label: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    settled: int = 0
    distilled: int = 0
    tokens: int = 0


class Learner:
    """Learns memories for problems, in batches.

    Args:
        backbone: the frozen model; gradients reach soft prompts only.
        engine: samples the rollouts, from the same model.
        config: see LearnConfig.
        sampling: temperature, top_p and max_tokens of the rollouts. The gradient is that of the distribution
            sampled from (temperature included; top_p must be 1).
        seed: with the problem's id, decides every random number.
        task: says where an answer is found, and when two are the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        engine: Engine,
        config: LearnConfig,
        sampling: Sampling,
        *,
        seed: int,
        task: Task = MATHS,
    ) -> None:
        config, sampling = fitted(config, backbone), fitted(sampling, backbone)
        self.backbone, self.engine, self.config, self.sampling = backbone, engine, config, sampling
        self.seed, self.task = seed, task
        self.reward, self.admission = registry.get("reward", config.reward), registry.get("admission", config.admission)

    def learn(self, targets: Sequence[Target]) -> list[Learned]:
        """Learn every target; the result of each is the same alone and together. Order is kept."""
        refusals = [
            target.refusal or self._room(target) or (None if target.label is not None else self.gate(target.vote))
            for target in targets
        ]
        learned = iter(self._learn([target for target, why in zip(targets, refusals, strict=True) if not why]))
        return [
            Learned(target.problem, None, False, why, target.vote.answer) if why else next(learned)
            for target, why in zip(targets, refusals, strict=True)
        ]

    def _learn(self, targets: Sequence[Target]) -> list[Learned]:
        """Learn targets that are fit for it, at most ``config.batch`` at a time."""
        results: dict[int, Learned] = {}
        waiting, live = iter(range(len(targets))), dict[int, Live]()
        while True:
            # A memory that is done makes room for the next.
            begun = {n: self._begin(targets[n]) for n in islice(waiting, self.config.batch - len(live))}
            self._distil(list(begun.values()))
            live |= begun
            if not live:
                break
            self._step(list(live.values()))
            for number in [number for number, memory in live.items() if self._done(memory)]:
                results[number] = self._finish(live.pop(number))
        return [results[number] for number in range(len(targets))]

    def _room(self, target: Target) -> str | None:
        """Why a problem is too long to be learned from: with a soft prompt it needs more room than without."""
        taken = self.backbone.carrier.columns(self._start(target))
        needed = len(self.backbone.encode(target.problem.text)) + taken + self.sampling.max_tokens
        if needed <= self.engine.context:
            return None
        return (
            f"too long: with its soft prompt and answer {needed} tokens, the model has room for {self.engine.context}"
        )

    def gate(self, vote: Vote) -> str | None:
        """Why a vote is too weak to learn from, or None if it is strong enough."""
        if vote.answer is None:
            return "no response gave an answer"
        total = len(vote.agrees)
        if vote.votes * 8 < self.config.min_votes * total:
            return f"weak vote: {vote.why}"
        if vote.lead * 8 < self.config.min_lead * total:
            return f"small lead: {vote.why}"
        return None

    def _start(self, target: Target) -> Tensor:
        rng = generator(self.seed, target.problem.id, "init")
        example = None if target.trace is None else (target.trace[0], target.trace[1].text)
        return self.backbone.carrier.start(self.config.init, Start(self.backbone, self.config.tokens, rng, example))

    def _begin(self, target: Target) -> Live:
        prompt = self._start(target).to(self.backbone.device).requires_grad_(True)
        optimizer = torch.optim.Adam([prompt], lr=self.config.lr)
        label = target.label if target.label is not None else target.vote.answer
        assert label is not None
        return Live(target, self.backbone.encode(target.problem.text), prompt, optimizer, label)

    def _done(self, memory: Live) -> bool:
        config = self.config
        return len(memory.steps) == config.steps or 0 < config.settled <= memory.settled

    def _distil(self, begun: list[Live]) -> None:
        """Steps on the responses that gave the labels, one each: no rollouts are drawn, and no rewards are recorded.

        Where a plain vote gave the label, half as many: what is wrong is learned as well as what is right.
        """
        todo = [(one, self.backbone.encode(trace[0]), trace[1]) for one in begun if (trace := one.target.trace)]
        for memory, *_ in todo:
            trusted, steps = memory.target.label is not None, self.config.distil
            memory.distilled = steps if trusted else (steps + 1) // 2
        for done in range(self.config.distil):
            left = [(memory, ids, trace) for memory, ids, trace in todo if done < memory.distilled]
            self._gradients([Group(ids, memory.prompt, [trace], [1.0]) for memory, ids, trace in left])
            for memory, *_ in left:
                self._descend(memory)

    def _descend(self, memory: Live) -> float:
        """One step along a soft prompt's gradient; returns the norm that this had."""
        norm = descend(memory.optimizer, self.config.clip)
        cap(memory.prompt, self.config.norm_cap * self.backbone.carrier.norm)
        return norm

    def _step(self, live: list[Live]) -> None:
        began = time.perf_counter()
        drawn = self.engine.generate([self._request(memory) for memory in live])
        groups: list[Group] = []
        for memory, rollouts in zip(live, drawn, strict=True):
            rng = generator(self.seed, memory.target.problem.id, "reward", len(memory.steps))
            groups += self._judge(memory, rollouts, rng)
        moved = self._gradients(groups)
        for memory in live:
            if id(memory.prompt) in moved:
                memory.steps[-1].update(updated=True, grad_norm=self._descend(memory))
        seconds = (time.perf_counter() - began) / len(live)
        for memory in live:
            norms = memory.prompt.detach().norm(dim=1)
            memory.steps[-1].update(norm=float(norms.mean()) / self.backbone.carrier.norm, seconds=seconds)

    def _request(self, memory: Live) -> Request:
        """What a memory asks for in a step: a group of rollouts of its own problem."""
        name, step, text = memory.target.problem.id, len(memory.steps), memory.target.problem.text
        if (shown := self.task.shown(text, step)) != text:
            memory.ids = self.backbone.encode(shown)
        return Request(
            memory.ids,
            memory.prompt.detach(),
            self.config.rollouts,
            self.sampling.temperature,
            1.0,
            self.sampling.max_tokens,
            tuple(derive(self.seed, name, "learn", step, g) for g in range(self.config.rollouts)),
            self.backbone.stop,
        )

    def _judge(self, memory: Live, rollouts: list[Rollout], rng: np.random.Generator) -> list[Group]:
        """Reward what ``_request`` gave and write the step's record; a group whose advantages are zero or mean nothing
        is left out."""
        task = self.task.on(self.task.shown(memory.target.problem.text, len(memory.steps)))
        answers = [task.extract(rollout.text) for rollout in rollouts]
        vote = task.vote(answers)
        scores = self.reward(Attempts(memory.target.problem, rollouts, answers, memory.label, task, rng))
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)
        memory.tokens += tokens
        memory.settled = memory.settled + 1 if min(scores) >= 1 else 0
        record = {
            "reward": sum(scores) / len(scores),
            "label": memory.label,
            "share": vote.share,
            "updated": False,
            "grad_norm": 0.0,
            "tokens": tokens,
        }
        memory.steps.append(record)
        if max(scores) == min(scores):
            return []
        return [Group(memory.ids, memory.prompt, rollouts, advantages(scores))]

    def _gradients(self, groups: list[Group]) -> set[int]:
        """Set the gradient of every prompt in ``groups``; returns their ids."""
        found = prompt_gradients(self.backbone, groups, self.sampling.temperature, row_tokens=self.config.row_tokens)
        for group in groups:
            assert group.prompt is not None
            group.prompt.grad = found[id(group.prompt)]
        return set(found)

    def _finish(self, memory: Live) -> Learned:
        admitted, reason = self.admission(self.config, memory.steps)
        return Learned(
            memory.target.problem,
            memory.prompt.detach().cpu().numpy().astype(np.float32, copy=True),
            admitted,
            reason,
            memory.label,
            memory.steps,
            memory.tokens,
            memory.distilled,
        )


def learner_of(engine: Engine, config: LearnConfig, sampling: Sampling, *, seed: int, task: Task) -> Learner:
    """The learner that goes with an engine: its own, where its work is done elsewhere, or one of this process."""
    own = getattr(engine, "learner", None)
    if own is not None:
        learner: Learner = own(config, sampling, seed=seed, task=task)
        return learner
    return Learner(engine.backbone, engine, config, sampling, seed=seed, task=task)


@register("admission", "reward")
def by_reward(config: LearnConfig, steps: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Whether a memory is admitted by the mean reward of its last steps, and why in one sentence."""
    recent = [step["reward"] for step in steps[-config.admit_steps :]]
    mean = sum(recent) / len(recent)
    if not any(step["reward"] > 0 for step in steps):
        return False, "it never saw a reward"
    # It may be right before its first step.
    informed = config.distil or getattr(registry.get("start", config.init), "informed", False)
    if not informed and not any(step["updated"] for step in steps):
        return False, "its rollouts never differed in reward, so there was nothing to learn"
    reason = f"mean reward {mean:.2f} over its last {len(recent)} steps, {config.admit:.2f} needed"
    return mean >= config.admit, reason
