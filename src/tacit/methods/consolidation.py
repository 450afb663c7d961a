"""Consolidation: one memory trained over several similar problems takes the place of the memories of each.

Builds on the agent and what it is made of. The paper leaves composition and merging open. Memories that lie near each
other *and* do each other's work are gathered into a cluster; one soft prompt, starting from its first member's, is
trained on all their problems and labels at once (``Together``); and it is judged without labels of any other
kind: fresh rollouts under it must agree with the members' labels at least as often as those under each member on
its own problem do. Only then is it stored, under the mean of their keys, and its parts are retired, which can be
undone. Nothing is ever changed in place.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tacit.agent import Agent
from tacit.engines.base import Request, Rollout
from tacit.errors import ConfigError
from tacit.gradients import Group, advantages
from tacit.learning import Learner, Live, Target
from tacit.memory import Memory, State, memory_id
from tacit.problem import Problem
from tacit.rewards import Attempts
from tacit.seeds import derive

TRIED = 64
"""Most memories that are tried for one cluster, the most similar first: each costs a group of rollouts."""


@dataclass(frozen=True)
class Example:
    """A problem and the answer that its own experience says is right."""

    problem: Problem
    label: str


@dataclass(frozen=True)
class Cluster(Target):
    """A task whose soft prompt also has to serve further examples, with the token ids of their prompts."""

    also: tuple[tuple[Example, Tensor], ...] = ()


class Together(Learner):
    """Learns soft prompts that serve several problems: a group of rollouts of each a step, all of equal weight."""

    def _also(self, memory: Live) -> tuple[tuple[Example, Tensor], ...]:
        return memory.target.also if isinstance(memory.target, Cluster) else ()

    def _room(self, target: Target) -> str | None:
        also = [example.problem for example, _ in target.also] if isinstance(target, Cluster) else []
        longest = max([target.problem, *also], key=lambda one: len(self.backbone.encode(one.text)))
        return super()._room(replace(target, problem=longest))

    def _requests(self, memory: Live) -> list[Request]:
        [own] = super()._requests(memory)
        name, step = memory.target.problem.id, len(memory.steps)
        seeds = [
            tuple(derive(self.seed, name, "learn", step, g, example.problem.id) for g in range(own.n))
            for example, _ in self._also(memory)
        ]
        return [own, *(replace(own, ids=ids, seeds=s) for (_, ids), s in zip(self._also(memory), seeds, strict=True))]

    def _judge(self, memory: Live, drawn: list[list[Rollout]], rng: np.random.Generator) -> list[Group]:
        own, *others = drawn
        groups, record = super()._judge(memory, [own], rng), memory.steps[-1]
        means = []
        for (example, ids), rollouts in zip(self._also(memory), others, strict=True):
            task = self.task.on(example.problem.text)
            answers = [task.extract(rollout.text) for rollout in rollouts]
            scores = self.reward(Attempts(example.problem, rollouts, answers, example.label, task, rng))
            means.append(sum(scores) / len(scores))
            tokens = sum(len(rollout.token_ids) for rollout in rollouts)
            memory.tokens += tokens
            record["tokens"] += tokens
            memory.settled = memory.settled if min(scores) >= 1 else 0
            if max(scores) > min(scores):
                groups.append(Group(ids, memory.prompt, rollouts, advantages(scores)))
        if others:
            record["also"] = sum(means) / len(others)
        return [replace(one, advantages=[gain / len(drawn) for gain in one.advantages]) for one in groups]


@dataclass(frozen=True)
class Consolidation:
    """What became of one cluster.

    Attributes:
        memory: the whole; stored if ``kept``.
        parts: ids of the memories it would replace.
        whole: agreement of its rollouts with the parts' labels, in 0..1.
        apart: the same for each part on its own problem.
        kept: whether the whole does no worse, and so took their place.
        tokens: generated to train and judge it.
    """

    memory: Memory
    parts: tuple[str, ...]
    whole: float
    apart: float
    kept: bool
    tokens: int


def consolidate(
    agent: Agent, *, near: float = 0.8, least: int = 3, most: int = 6, serves: float = 0.5
) -> list[Consolidation]:
    """Look for clusters among an agent's active memories, train and judge one memory for each, and store what is kept.

    Args:
        agent: whose bank, engine and learning settings are used.
        near: least cosine similarity of a member's key to the first one's.
        least, most: members of a cluster.
        serves: least agreement of rollouts under the first member with another's label, to be of one cluster.

    Raises:
        ConfigError: least < 2 or most < least.
    """
    if least < 2 or most < least:
        raise ConfigError(f"a cluster of {least} to {most} memories makes no sense; give at least 2, and most >= least")
    infos = agent.bank.find(agent.namespace, states=[State.ACTIVE])
    held = [
        agent.bank.get(info.id, agent.namespace) for info in infos if info.fingerprint == agent.backbone.fingerprint
    ]
    held = [memory for memory in held if _examples(memory)]
    clusters = [
        cluster
        for cluster in _clusters(agent, held, near, least, most, serves)
        if agent.bank.marked(agent.namespace, _tried(cluster)) is None
    ]
    learner = Together(
        agent.backbone, agent.engine, replace(agent.learning, init="nearest"), agent.sampling, seed=agent.seed
    )
    results = []
    for cluster, learned in zip(clusters, learner.learn([_task(agent, cluster) for cluster in clusters]), strict=True):
        assert learned.prompt is not None
        examples = [example for memory in cluster for example in _examples(memory)]
        own = [(memory.prompt, example) for memory in cluster for example in _examples(memory)]
        whole = float(np.mean(_agreement(agent, [(learned.prompt, example) for example in examples])))
        apart = float(np.mean(_agreement(agent, own)))
        memory = _whole(agent, cluster, learned.prompt, learned.steps, whole, apart)
        parts, kept = tuple(part.id for part in cluster), memory.state is State.ACTIVE
        results.append(Consolidation(memory, parts, whole, apart, kept, learned.tokens))
    with agent.bank.transaction():
        for cluster, result in zip(clusters, results, strict=True):
            agent.bank.mark(agent.namespace, _tried(cluster), "kept" if result.kept else result.memory.reason)
            if result.kept and agent.bank.add(result.memory):
                for part in result.parts:
                    agent.bank.set_state(part, agent.namespace, State.RETIRED, f"consolidated into {result.memory.id}")
    return results


def _examples(memory: Memory) -> list[Example]:
    """The problems that a memory was trained on, with their labels."""
    if "examples" in memory.provenance:
        return [Example(Problem(one["id"], one["problem"]), one["label"]) for one in memory.provenance["examples"]]
    label = memory.provenance.get("label")
    return [Example(Problem(memory.problem_id, memory.problem), label)] if isinstance(label, str) else []


def _clusters(
    agent: Agent, held: Sequence[Memory], near: float, least: int, most: int, serves: float
) -> list[list[Memory]]:
    """Disjoint clusters, each led by its oldest member; a member joins the first that it is near to and served by."""
    free = list(held)
    clusters: list[list[Memory]] = []
    while free:
        first, free = free[0], free[1:]
        similar = [memory for memory in free if float(memory.key @ first.key) >= near]
        similar = sorted(similar, key=lambda memory: -float(memory.key @ first.key))[:TRIED]
        pairs = [(first.prompt, example) for memory in similar for example in _examples(memory)]
        scores = iter(_agreement(agent, pairs))
        agreed = [float(np.mean([next(scores) for _ in _examples(memory)])) for memory in similar]
        served = [memory for memory, score in zip(similar, agreed, strict=True) if score >= serves][: most - 1]
        if len(served) + 1 >= least:
            clusters.append([first, *served])
            taken = {memory.id for memory in served}
            free = [memory for memory in free if memory.id not in taken]
    return clusters


def _agreement(agent: Agent, pairs: Sequence[tuple[np.ndarray, Example]]) -> list[float]:
    """Share of fresh rollouts under each soft prompt that give its example's label."""
    if not pairs:
        return []
    sampling, count = agent.sampling, agent.learning.rollouts
    requests = [
        Request(
            agent.backbone.encode(example.problem.text),
            torch.tensor(prompt),
            count,
            sampling.temperature,
            1.0,
            sampling.max_tokens,
            tuple(derive(agent.seed, example.problem.id, "judge", g) for g in range(count)),
            agent.backbone.stop,
        )
        for prompt, example in pairs
    ]
    shares = []
    for group, (_, example) in zip(agent.engine.generate(requests), pairs, strict=True):
        task = agent.task.on(example.problem.text)
        shares.append(float(np.mean(task.giving([task.extract(one.text) for one in group], example.label))))
    return shares


def _task(agent: Agent, cluster: Sequence[Memory]) -> Cluster:
    first, *others = [example for memory in cluster for example in _examples(memory)]
    also = tuple((one, agent.backbone.encode(one.problem.text)) for one in others)
    vote = agent.task.on(first.problem.text).vote([first.label])
    return Cluster(first.problem, vote, cluster[0].prompt, first.label, also=also)


def _tried(cluster: Sequence[Memory]) -> str:
    """The name under which the bank notes that a cluster was tried, so that it is not tried for ever."""
    return "consolidated:" + hashlib.sha256(" ".join(memory.id for memory in cluster).encode()).hexdigest()[:24]


def _whole(
    agent: Agent,
    cluster: Sequence[Memory],
    prompt: np.ndarray,
    steps: list[dict[str, object]],
    whole: float,
    apart: float,
) -> Memory:
    first = cluster[0]
    key = np.mean([memory.key for memory in cluster], axis=0, dtype=np.float64)
    parts = [memory.id for memory in cluster]
    examples = [example for memory in cluster for example in _examples(memory)]
    said = f"agrees with its {len(examples)} labels to {whole:.2f}, its parts to {apart:.2f}"
    digest = hashlib.sha256(" ".join([*parts, agent.learning.digest()]).encode()).hexdigest()
    return Memory(
        id=memory_id(first.fingerprint, agent.namespace, first.problem_id, agent.seed, digest),
        namespace=agent.namespace,
        problem_id=first.problem_id,
        problem=first.problem,
        prompt=prompt,
        key=np.ascontiguousarray(key / np.linalg.norm(key), dtype=np.float32),
        key_kind=first.key_kind,
        fingerprint=first.fingerprint,
        state=State.ACTIVE if whole >= apart else State.CANDIDATE,
        reason=f"consolidated: {said}" if whole >= apart else f"not kept: {said}",
        provenance={
            "label": first.provenance["label"],
            "parts": parts,
            "examples": [
                {"id": example.problem.id, "problem": example.problem.text, "label": example.label}
                for example in examples
            ],
            "whole": whole,
            "apart": apart,
            "seed": agent.seed,
            "model": agent.backbone.name,
            "config": agent.learning.digest(),
            "steps": [{k: v for k, v in step.items() if k != "seconds"} for step in steps],
        },
        created=time.time(),
    )
