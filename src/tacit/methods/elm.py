"""Experiential Latent Memories, and the variants that show what each part of it is worth.

Builds on agent and the method protocol. ``elm`` is what ``tacit run`` does: the nearest memory's answer where the
verifier prefers it. The others change one thing each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tacit.agent import Agent, Answered, Remembered
from tacit.bank import open_bank
from tacit.config import LearnConfig
from tacit.judges.verifiers import VoteShare
from tacit.labels import Label
from tacit.memory import State
from tacit.methods import controls
from tacit.methods.base import Lesson, Method, Oracle, Reply, World
from tacit.methods.planning import Plan, Setting, answering, remembering
from tacit.model.presets import fitted
from tacit.problem import Problem
from tacit.registry import register


@register("method", "elm")
class ELM(Method):
    """Routed answers from a bank that grows with the stream."""

    routed: ClassVar[bool] = True
    agent_class: ClassVar[type[Agent]] = Agent
    changes: ClassVar[Mapping[str, Any]] = {}
    key: ClassVar[str | None] = None
    """Kind of keys, in place of the settings' one."""
    rewards_alone: ClassVar[bool] = False
    """Whether steps on rollouts stand for those on the response that gave the label, as in the paper."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.bank = open_bank(str(world.folder / "bank.sqlite"))
        self.agent = self.agent_class(
            world.backbone,
            world.engine,
            self.bank,
            seed=world.seed,
            verifier=self._verifier(),
            sampling=world.sampling,
            learning=self._changed(fitted(world.learning, world.backbone)),
            recalling=replace(world.recalling, key=self.key or world.recalling.key),
            task=world.task,
        )
        rows = world.backbone.carrier.rows or self.agent.learning.tokens
        self.trainable = rows * world.backbone.hidden_size

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        work = (answering(setting, arms=2), remembering(replace(setting, learning=cls._changed(setting.learning))))
        # Both answers of every pair are read to route, and all samples to weigh labels.
        read = 2 * setting.responses + 2 * setting.sampling.samples * (setting.learning.label == "verified")
        return Plan(work, "memory", scored=setting.problems * read if setting.verified else 0)

    def _verifier(self) -> Any:
        return self.world.verifier

    @classmethod
    def _changed(cls, learning: LearnConfig) -> LearnConfig:
        alone: dict[str, Any] = (
            {"distil": 0, "steps": max(learning.distil, learning.steps)} if cls.rewards_alone else {}
        )
        return replace(learning, **cls.changes, **alone)

    def strangers(self, problems: Sequence[Problem]) -> int:
        return self.agent.strangers(problems)

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        return [self._reply(one) for one in self.agent.answer(problems)]

    def _reply(self, one: Answered) -> Reply:
        notes: dict[str, Any] = {"route": one.greedy_route.name}
        if one.hit is not None and one.memory is not None:
            notes |= {"memory": one.hit.memory_id, "source": one.hit.problem_id, "similarity": one.hit.similarity}
        arms = {"zero_shot": (one.zero_shot.answers, one.zero_shot.greedy_answer)}
        if one.memory is not None:
            arms["memory"] = (one.memory.answers, one.memory.greedy_answer)
        if self.routed:
            return Reply(one.answers, one.greedy_answer, notes, arms, one)
        given = one.memory or one.zero_shot
        return Reply(given.answers, given.greedy_answer, notes, arms, one)

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> Sequence[Lesson] | None:
        answered = [reply.state for reply in replies]
        remembered = self.agent.learn(answered)
        self.agent.remember(answered, remembered)
        self._count(remembered)
        return [lesson(result) for result in remembered]

    def _count(self, remembered: Sequence[Remembered]) -> None:
        learned = [one.learned for one in remembered]
        self.gradient_steps += sum(one.distilled + sum(step["updated"] for step in one.steps) for one in learned)

    def close(self) -> None:
        self.bank.close()


def lesson(result: Remembered) -> Lesson:
    """What became of one problem, for the row."""
    learned, memory = result.learned, result.memory
    notes: dict[str, Any] = {"rewards": [step["reward"] for step in learned.steps]}
    if memory is not None:
        notes |= {"memory": memory.id, **{name: memory.provenance.get(name) for name in ("share", "margin", "trusted")}}
    return Lesson(
        learned.label,
        memory is not None and memory.state is State.ACTIVE,
        memory.reason if memory else learned.reason,
        notes,
    )


@register("method", "elm-offline")
class Offline(ELM):
    """Learns from the whole stream first and answers it then, as offline TTRL does: to compare at equal knowledge.

    Memories still come from one problem each; a problem is answered with its own one, being the most similar.
    """

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        plan = super().plan(replace(setting, window=setting.learning.batch))
        answered, learned = plan.work
        return replace(
            plan, work=(replace(answered, what="prepare"), replace(learned, what="prepare"), answering(setting, arms=2))
        )

    def strangers(self, problems: Sequence[Problem]) -> int:
        return len(problems)  # all is learned before

    def prepare(self) -> None:
        stream, size = self.world.stream, self.agent.learning.batch
        for start in range(0, len(stream), size):
            answered = self.agent.answer(stream[start : start + size])
            remembered = self.agent.learn(answered)
            self.agent.remember(answered, remembered)
            self._count(remembered)

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> Sequence[Lesson] | None:
        return None


@register("method", "elm-unrouted")
class Unrouted(ELM):
    """The memory's answer whenever there is a memory."""

    routed: ClassVar[bool] = False


@register("method", "elm-vote")
class VoteRouted(ELM):
    """Routed by vote share: nothing in it was ever trained with labels."""

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        return replace(super().plan(setting), scored=0)

    def _verifier(self) -> Any:
        return VoteShare()


@register("method", "elm-random")
class RandomMemory(ELM):
    """Control: some memory instead of the nearest, unrouted."""

    unlike: ClassVar[bool] = False

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        answered = self.agent.answer(problems, use_memory=False)
        drawn = controls.random_memory(self.agent, answered, unlike=self.unlike)
        return [
            Reply.of(one.zero_shot, one) if other is None else Reply.of(other[1], one, memory=other[0])
            for one, other in zip(answered, drawn, strict=True)
        ]


@register("method", "elm-unlike")
class UnlikeMemory(RandomMemory):
    """Control: a memory of the half least similar to the problem, unrouted: what any soft prompt would do."""

    unlike: ClassVar[bool] = True


@register("method", "elm-random-reward")
class RandomReward(Unrouted):
    """Control: rewards drawn by a coin (arXiv 2506.10947), admitted and used as if they meant something; unrouted."""

    changes: ClassVar[Mapping[str, Any]] = {"reward": "random", "admit": 0.0}
    rewards_alone: ClassVar[bool] = True


@register("method", "elm-format-reward")
class FormatReward(Unrouted):
    """Control: a reward for giving any answer; unrouted."""

    changes: ClassVar[Mapping[str, Any]] = {"reward": "format"}
    rewards_alone: ClassVar[bool] = True


@register("method", "elm-paper")
class Paper(ELM):
    """As in the paper: labels by the plain vote without memory, a memory of every problem, keys of its embeddings."""

    changes: ClassVar[Mapping[str, Any]] = {"label": "zero-shot", "enough": 2.0}
    key: ClassVar[str | None] = "input"
    rewards_alone: ClassVar[bool] = True


@dataclass
class _Told(Agent):
    """An agent that is told the right answer to learn from."""

    oracle: Oracle | None = None

    def _label(self, one: Answered) -> Label:
        assert self.oracle is not None
        answer = self.oracle.truth(one.problem.id)
        giving = one.zero_shot.task.giving(one.zero_shot.answers, answer)
        trace = next((said for said, right in zip(one.zero_shot.samples, giving, strict=True) if right), None)
        return Label(one.zero_shot.vote, answer, "the right answer", True, trace)


@register("method", "elm-oracle")
class OracleLabels(ELM):
    """Upper bound: learns from the right answers, after having answered."""

    uses_labels: ClassVar[bool] = True
    agent_class: ClassVar[type[Agent]] = _Told

    def __init__(self, world: World) -> None:
        super().__init__(world)
        assert isinstance(self.agent, _Told)
        self.agent.oracle = world.oracle
