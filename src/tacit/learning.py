"""Learning: concurrent GRPO on soft prompts, many memories in one batch. The heart of the method.

Builds on backbone, the engine, answers, rewards and gradients. For every problem (method.md, "Creation"): sample a
group of rollouts under its soft prompt, reward those that give the label, and take one policy-gradient step on the soft
prompt alone (gradients.py), with advantages A_i = r_i - mean(r).

One step per group of fresh rollouts keeps it on-policy: the importance ratio is 1, so there is no old policy, no
clipping (whose bias has passed for learning, arXiv 2506.10947), and no division by the deviation.
The backbone has no gradients. Every memory has its own prompt, Adam state, gradient clip and random numbers, so what
else is in the batch changes nothing; the group's prompt is computed once and its gradient summed in the cache.
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

from tacit import rewards
from tacit.answers.vote import Vote, extract, vote_answers
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Engine, Request, Rollout
from tacit.gradients import Group, advantages, cap, descend, prompt_gradients
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.seeds import derive, generator


@dataclass(frozen=True)
class Task:
    """One problem to learn from.

    Attributes:
        problem: blind.
        vote: over its answers: gate and, for fixed labels, the label.
        start: soft prompt [K, d] to start from, for init "nearest"; None if there is none.
        label: decided by better evidence than the vote, which then neither gates nor labels; None for the vote's.
        refusal: why there is nothing to learn here, if so.
    """

    problem: Problem
    vote: Vote
    start: np.ndarray | None = None
    label: str | None = None
    refusal: str | None = None


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
    """

    problem: Problem
    prompt: np.ndarray | None
    admitted: bool
    reason: str
    label: str | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0


@dataclass(eq=False)
class Live:
    """A memory being learned; ``settled`` counts the latest steps in which every rollout earned the full reward."""

    task: Task
    ids: Tensor
    prompt: Tensor
    optimizer: torch.optim.Adam
    label: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    settled: int = 0
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
    """

    def __init__(
        self,
        backbone: Backbone,
        engine: Engine,
        config: LearnConfig,
        sampling: Sampling,
        *,
        seed: int,
    ) -> None:
        self.backbone, self.engine, self.config, self.sampling = backbone, engine, config, sampling
        self.seed = seed
        self.reward = rewards.get(config.reward)

    def learn(self, tasks: Sequence[Task]) -> list[Learned]:
        """Learn every task; the result of each is the same alone and together. Order is kept."""
        refusals = [
            task.refusal or self._room(task) or (None if task.label is not None else self.gate(task.vote))
            for task in tasks
        ]
        learned = iter(self._learn([task for task, why in zip(tasks, refusals, strict=True) if not why]))
        return [
            Learned(task.problem, None, False, why, task.vote.answer) if why else next(learned)
            for task, why in zip(tasks, refusals, strict=True)
        ]

    def _learn(self, tasks: Sequence[Task]) -> list[Learned]:
        """Learn tasks that are fit for it, at most ``config.batch`` at a time."""
        results: dict[int, Learned] = {}
        waiting, live = iter(range(len(tasks))), dict[int, Live]()
        while True:
            # A memory that is done makes room for the next.
            for number in islice(waiting, self.config.batch - len(live)):
                live[number] = self._begin(tasks[number])
            if not live:
                break
            self._step(list(live.values()))
            for number in [number for number, memory in live.items() if self._done(memory)]:
                results[number] = self._finish(live.pop(number))
        return [results[number] for number in range(len(tasks))]

    def _room(self, task: Task) -> str | None:
        """Why a problem is too long to be learned from: with a soft prompt it needs more room than without."""
        rows = len(task.start) if task.start is not None else self.config.tokens
        needed = len(self.backbone.encode(task.problem.text)) + rows + self.sampling.max_tokens
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

    def _begin(self, task: Task) -> Live:
        prompt = self._initial(task).to(self.backbone.device).requires_grad_(True)
        optimizer = torch.optim.Adam([prompt], lr=self.config.lr)
        label = task.label if task.label is not None else task.vote.answer
        assert label is not None
        return Live(task, self.backbone.encode(task.problem.text), prompt, optimizer, label)

    def _initial(self, task: Task) -> Tensor:
        if self.config.init == "nearest" and task.start is not None:
            return torch.tensor(task.start, dtype=torch.float32)
        return initial_prompt(self.backbone, self.config, generator(self.seed, task.problem.id, "init"))

    def _done(self, memory: Live) -> bool:
        config = self.config
        return len(memory.steps) == config.steps or 0 < config.settled <= memory.settled

    def _step(self, live: list[Live]) -> None:
        began = time.perf_counter()
        asked = [self._requests(memory) for memory in live]
        drawn = iter(self.engine.generate([request for requests in asked for request in requests]))
        groups: list[Group] = []
        for memory, requests in zip(live, asked, strict=True):
            rng = generator(self.seed, memory.task.problem.id, "reward", len(memory.steps))
            groups += self._judge(memory, [next(drawn) for _ in requests], rng)
        moved = self._gradients(groups)
        for memory in live:
            if id(memory.prompt) in moved:
                norm = descend(memory.optimizer, self.config.clip)
                cap(memory.prompt, self.config.norm_cap * self.backbone.embedding_norm)
                memory.steps[-1].update(updated=True, grad_norm=norm)
        seconds = (time.perf_counter() - began) / len(live)
        for memory in live:
            norms = memory.prompt.detach().norm(dim=1)
            memory.steps[-1].update(norm=float(norms.mean()) / self.backbone.embedding_norm, seconds=seconds)

    def _requests(self, memory: Live) -> list[Request]:
        """What a memory asks for in a step: a group of rollouts of its own problem."""
        name, step = memory.task.problem.id, len(memory.steps)
        return [
            Request(
                memory.ids,
                memory.prompt.detach(),
                self.config.rollouts,
                self.sampling.temperature,
                1.0,
                self.sampling.max_tokens,
                tuple(derive(self.seed, name, "learn", step, g) for g in range(self.config.rollouts)),
            )
        ]

    def _judge(self, memory: Live, drawn: list[list[Rollout]], rng: np.random.Generator) -> list[Group]:
        """Reward what ``_requests`` gave and write the step's record; a group whose advantages are zero or mean nothing
        is left out."""
        [rollouts] = drawn
        answers = [extract(rollout.text) for rollout in rollouts]
        vote = vote_answers(answers)
        weak = None
        if self.config.label == "renewed":
            weak = self.gate(vote)
            memory.label = vote.answer or memory.label
        scores = self.reward(answers, memory.label, rng)
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
        if weak or max(scores) == min(scores):
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
        config = self.config
        recent = [record["reward"] for record in memory.steps[-config.admit_steps :]]
        mean = sum(recent) / len(recent)
        seen = any(record["reward"] > 0 for record in memory.steps)
        moved = any(record["updated"] for record in memory.steps)
        admitted = seen and moved and mean >= config.admit
        if not seen:
            reason = "it never saw a reward"
        elif not moved:
            reason = "its rollouts never differed in reward, so there was nothing to learn"
        else:
            reason = f"mean reward {mean:.2f} over its last {len(recent)} steps, {config.admit:.2f} needed"
        return Learned(
            memory.task.problem,
            memory.prompt.detach().cpu().numpy().astype(np.float32, copy=True),
            admitted,
            reason,
            memory.label,
            memory.steps,
            memory.tokens,
        )


def initial_prompt(backbone: Backbone, config: LearnConfig, rng: np.random.Generator) -> Tensor:
    """The soft prompt [K, d] (float32, on CPU) that learning starts from; "nearest" without a memory is gaussian."""
    if config.init in ("gaussian", "nearest"):
        noise = rng.standard_normal((config.tokens, backbone.hidden_size), dtype=np.float32)
        return torch.from_numpy(noise) * backbone.embedding_std
    ids = torch.from_numpy(rng.integers(0, len(backbone.tokenizer), config.tokens))
    return backbone.embed(ids).detach().float().cpu().clone()
