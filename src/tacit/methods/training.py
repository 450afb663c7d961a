"""What the baselines that train share: a policy that may change, and GRPO on mini-batches of problems.

Builds on gradients, learning's vote gate, rewards and the method protocol. A *policy* is a copy of all weights
("full"), LoRA adapters (arXiv 2106.09685, by peft) on a copy ("lora"), or one soft prompt for all problems ("soft");
the frozen model itself is never touched. One step samples a group per problem of the mini-batch and rewards what its
judge says. Then it takes one on-policy Adam step on the mean of the problems' losses, as learning does for a memory:
advantages r - mean, groups without a difference in reward skipped, the gradient clipped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tacit import registry
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.gradients import Group, advantages, cap, descend, passes, policy_loss
from tacit.learning import Learner
from tacit.methods.base import Method, Reply, World
from tacit.model.backbone import Backbone
from tacit.model.prompts import Start
from tacit.problem import Problem
from tacit.responses import Responder, Responses
from tacit.rewards import Attempts
from tacit.seeds import derive, generator

KINDS = ("full", "lora", "soft")


class Policy:
    """A model that may change, made from the frozen one and equal to it until trained (a soft prompt is random).

    Attributes:
        backbone: a copy of the frozen model; for "soft" the frozen model itself, which stays as it is.
        prompt: the soft prompt [K, d], for "soft" alone.
        parameters: what is trained.
        trainable: how many numbers that is.
    """

    def __init__(self, kind: str, world: World, rank: int = 8) -> None:
        if kind not in KINDS:
            raise ConfigError(f"policy is {kind!r}; use one of {', '.join(KINDS)}")
        self.prompt: Tensor | None = None
        self.parameters: list[Tensor]
        if kind == "soft":
            self.backbone = world.backbone
            rng = generator(world.seed, "soft policy", "init")
            start = Start(world.backbone, world.learning.tokens, rng)
            self.prompt = (
                world.backbone.carrier.start(world.learning.init, start).to(world.backbone.device).requires_grad_(True)
            )
            self.parameters = [self.prompt]
        else:
            self.backbone = duplicate(world.backbone, f"{world.backbone.name} ({kind})")
            self.parameters = (
                list(self.backbone.model.parameters())
                if kind == "full"
                else _adapt(self.backbone, rank, derive(world.seed, "lora"))
            )
            for parameter in self.parameters:
                parameter.requires_grad_(True)
        self.engine = world.engine if kind == "soft" else LocalEngine(self.backbone)
        self.trainable = sum(parameter.numel() for parameter in self.parameters)
        self._world = world
        self._start = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start."""
        for parameter, start in zip(self.parameters, self._start, strict=True):
            parameter.copy_(start)

    def respond(self, problems: Sequence[Problem]) -> list[Responses]:
        """Answer problems in one batch, with the random numbers of the frozen model's answers."""
        responder = Responder(self.engine, self._world.sampling, self._world.seed, self._world.task)
        prompt = None if self.prompt is None else self.prompt.detach().cpu().numpy()
        return responder.generate(self._world.requests(problems, prompt), problems)


def duplicate(backbone: Backbone, name: str) -> Backbone:
    """A deep copy whose weights may change; memories of the original are not valid for it."""
    model = copy.deepcopy(backbone.model)
    return Backbone(model, backbone.tokenizer, backbone.template, name, f"a copy of {backbone.fingerprint}", lean=False)


def _adapt(backbone: Backbone, rank: int, seed: int) -> list[Tensor]:
    """Put LoRA adapters on every linear layer of attention and MLP; returns their parameters, in float32."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and only this needs it

    if rank < 1:
        raise ConfigError(f"rank is {rank}; it must be at least 1")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone.model)
    backbone.model.eval().requires_grad_(False)
    adapters = [module for name, module in backbone.model.named_modules() if name.endswith(("lora_A", "lora_B"))]
    return [parameter for adapter in adapters for parameter in adapter.float().parameters()]


# ---------------------------------------------------------------- judges


@dataclass(frozen=True)
class Judged:
    """What a judge says of the answers of a group.

    Attributes:
        rewards: one per answer; None if there is nothing to learn from them.
        label: the answer that was rewarded, where the judge knows one.
        why: it refused.
    """

    rewards: Sequence[float] | None
    label: str | None = None
    why: str = ""


Judge = Callable[[Problem, Sequence[Rollout], np.random.Generator], Judged]
"""(problem, a group of rollouts, generator for random rewards) -> what they are worth."""


def vote_gate(world: World) -> Callable[..., str | None]:
    """Why a vote is too weak to learn from, None if it is not: the gate of learning."""
    return Learner(world.backbone, world.engine, world.learning, world.sampling, seed=world.seed).gate


def by_label(world: World, labels: Mapping[str, str]) -> Judge:
    """Agreement with a label per problem id; problems without one are refused."""

    def judge(problem: Problem, rollouts: Sequence[Rollout], rng: np.random.Generator) -> Judged:
        label = labels.get(problem.id)
        if label is None:
            return Judged(None, None, "no label")
        return Judged(_rewards(world, problem, rollouts, label, rng), label)

    return judge


def _rewards(
    world: World, problem: Problem, rollouts: Sequence[Rollout], label: str, rng: np.random.Generator
) -> list[float]:
    task = world.task.on(problem.text)
    answers = [task.extract(rollout.text) for rollout in rollouts]
    reward: Callable[[Attempts], list[float]] = registry.get("reward", world.learning.reward)
    return reward(Attempts(problem, rollouts, answers, label, task, rng))


def by_own_vote(world: World) -> Judge:
    """Agreement with the majority of the group itself, as in TTRL."""

    def judge(problem: Problem, rollouts: Sequence[Rollout], rng: np.random.Generator) -> Judged:
        task = world.task.on(problem.text)
        vote = task.vote([task.extract(rollout.text) for rollout in rollouts])
        if vote.answer is None:
            return Judged(None, None, "no response gave an answer")
        return Judged(_rewards(world, problem, rollouts, vote.answer, rng), vote.answer)

    return judge


def by_oracle(world: World) -> Judge:
    """The truth. For methods that say ``uses_labels``."""
    oracle = world.oracle
    assert oracle is not None

    def judge(problem: Problem, rollouts: Sequence[Rollout], rng: np.random.Generator) -> Judged:
        task = world.task.on(problem.text)
        answers = [task.extract(rollout.text) for rollout in rollouts]
        return Judged([float(right) for right in oracle.right(problem.id, answers)])

    return judge


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Seen:
    """What one step made of one problem.

    Attributes:
        label: that was rewarded, where there is one.
        reward: mean of the group; None if the judge refused.
        used: whether the group differed in reward, so that it had a gradient.
        why: the judge refused.
    """

    label: str | None
    reward: float | None
    used: bool
    why: str = ""


class Trainer:
    """Adam on one policy.

    Args:
        policy: changed in place.
        world: rollouts, clip, norm cap and the seed come from here.
        lr: Adam's learning rate.
        purpose: enters every seed, so that two trainings draw different numbers.
        votes: answers sampled for the judge to see; the first ``learning.rollouts`` of them are trained on (TTRL
            votes over more than it trains on). Fewer than these means as many.

    Attributes:
        steps: gradient steps taken.
    """

    def __init__(self, policy: Policy, world: World, lr: float, purpose: str, votes: int = 0) -> None:
        self.policy, self.world, self.purpose = policy, world, purpose
        self.sampled = max(votes, world.learning.rollouts)
        self.steps = 0
        # Half precision loses small steps, so Adam then works on float32 twins of the weights.
        self._masters = [
            parameter if parameter.dtype == torch.float32 else parameter.detach().float()
            for parameter in policy.parameters
        ]
        self._optimizer = torch.optim.Adam(self._masters, lr=lr)
        self._ids: dict[str, Tensor] = {}

    def step(self, problems: Sequence[Problem], judge: Judge, turn: int) -> list[Seen]:
        """Sample, judge, and one gradient step if any group has something to teach.

        Args:
            problems: the mini-batch.
            judge: rewards answers.
            turn: of these problems; with purpose and problem it decides the random numbers.
        """
        policy, learning = self.policy, self.world.learning
        groups: list[Group] = []
        seen = []
        for problem, rollouts in zip(problems, policy.engine.generate(self._requests(problems, turn)), strict=True):
            rng = generator(self.world.seed, problem.id, self.purpose, "reward", turn)
            verdict = judge(problem, rollouts, rng)
            if verdict.rewards is None:
                seen.append(Seen(verdict.label, None, False, verdict.why))
                continue
            scores = list(verdict.rewards)[: learning.rollouts]
            used = max(scores) > min(scores)
            seen.append(Seen(verdict.label, sum(scores) / len(scores), used))
            if used:
                # A view of the soft prompt each: groups of one tensor would all have to go into one pass.
                prompt = None if policy.prompt is None else policy.prompt.view_as(policy.prompt)
                trained = rollouts[: learning.rollouts]
                groups.append(Group(self._ids[problem.id], prompt, trained, advantages(scores)))
        if groups:
            self._descend(groups, len(problems))
        return seen

    def _requests(self, problems: Sequence[Problem], turn: int) -> list[Request]:
        world = self.world
        prompt = None if self.policy.prompt is None else self.policy.prompt.detach()
        requests = []
        for problem in problems:
            if problem.id not in self._ids:
                self._ids[problem.id] = self.policy.backbone.encode(problem.text)
            seeds = tuple(derive(world.seed, problem.id, self.purpose, turn, g) for g in range(self.sampled))
            requests.append(
                Request(
                    self._ids[problem.id],
                    prompt,
                    self.sampled,
                    world.sampling.temperature,
                    1.0,
                    world.sampling.max_tokens,
                    seeds,
                    self.policy.backbone.stop,
                )
            )
        return requests

    def _descend(self, groups: Sequence[Group], problems: int) -> None:
        policy, world = self.policy, self.world
        for part in passes(groups, world.learning.row_tokens):
            (policy_loss(policy.backbone, part, world.sampling.temperature) / problems).backward()
        for master, parameter in zip(self._masters, policy.parameters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        descend(self._optimizer, world.learning.clip)
        with torch.no_grad():
            for master, parameter in zip(self._masters, policy.parameters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        if policy.prompt is not None:  # held below the norm that memories are held below
            cap(policy.prompt, world.learning.norm_cap * world.backbone.carrier.norm)
        self.steps += 1

    def epochs(self, problems: Sequence[Problem], judge: Judge, epochs: int, batch: int) -> Iterator[list[Seen]]:
        """Several passes over all problems, in another order and other mini-batches each; yields after every pass,
        in the order of ``problems``."""
        for epoch in range(epochs):
            order = generator(self.world.seed, self.purpose, "order", epoch).permutation(len(problems))
            seen: dict[int, Seen] = {}
            for start in range(0, len(problems), batch):
                places = [int(place) for place in order[start : start + batch]]
                seen |= zip(places, self.step([problems[place] for place in places], judge, epoch), strict=True)
            yield [seen[place] for place in range(len(problems))]


class Trained(Method):
    """A method with a policy that it trains; its options are numbers and words of the defaults' types.

    The defaults are the best of those tried on the testbed (learning rates a factor of three apart); a larger model
    needs its own.
    """

    kind: ClassVar[str] = "full"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        for name, value in self.options.items():
            wanted = type(self.defaults[name])
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ConfigError(f"{self.name}: {name} is {value!r}; it must be of type {wanted.__name__}")
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"{self.name}: {name} is {value}; it must be 0 or more")
        if self.options.get("batch", 1) < 1:
            raise ConfigError(f"{self.name}: batch is 0; it must be at least 1")
        self.policy = Policy(self.kind, world, self.options.get("rank", 8))
        self.trainable = self.policy.trainable

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        return [Reply.of(responses) for responses in self.policy.respond(problems)]


def variant(base: type[Trained], name: str, says: str, kind: str = "full", **options: Any) -> None:
    """Register ``base`` with a policy of this kind; ``options`` are defaults besides its own or in their place."""
    fields = {"__doc__": says, "__module__": base.__module__, "kind": kind, "defaults": {**base.defaults, **options}}
    registry.register("method", name)(type(base.__name__, (base,), fields))
