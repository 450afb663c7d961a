"""What a run asks beside Tacit (``--baselines``): ICL, a random memory, the verifier alone, a vote at equal compute.

Builds on agent, routing and the methods of the same names. ``Beside`` asks them about problems that an agent has
answered. ``random_memory`` answers under some memory instead of the nearest: what it gains comes from having a soft
prompt at all, not from remembering. ``verified`` lets the verifier choose between two answers without memory: what it
gains comes from the verifier. ``majority`` votes over as many zero-shot rollouts as Tacit spent on the problem in all;
``vote`` over as many as routing sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tacit.agent import Agent, Answered, Remembered
from tacit.memory import State
from tacit.methods.base import Reply, World
from tacit.methods.icl import ICL
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.routing import route
from tacit.seeds import generator


@dataclass(frozen=True)
class Arm:
    """What a baseline said to one problem: sampled answers and greedy one, tokens generated, and notes for the row."""

    answers: Sequence[str | None]
    greedy_answer: str | None
    tokens: int
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, responses: Responses, **notes: Any) -> Arm:
        """The arm that gives ``responses`` as they are."""
        return cls(responses.answers, responses.greedy_answer, responses.tokens, notes)


class Beside:
    """The baselines of a run.

    Args:
        agent: beside which, with whose model, engine, sampler, seed and memories.
        wanted: "icl", "random", "verified", "majority", "vote": which of them.
    """

    def __init__(self, agent: Agent, wanted: Sequence[str]) -> None:
        self.agent, self.wanted = agent, wanted
        self.world = World(
            agent.backbone,
            agent.engine,
            agent.seed,
            Path(),
            verifier=agent.verifier,
            sampling=agent.sampling,
            recalling=agent.recalling,
            task=agent.task,
        )
        self.icl = ICL(self.world)

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Know what was known after these finished rows."""
        for row in rows if "icl" in self.wanted else ():
            if row["trace"] is not None:
                [key] = self.agent.recall.keys([row["problem"]])
                self.icl.store.add(row["id"], key, (row["problem"], row["trace"]))

    def strangers(self, problems: Sequence[Problem]) -> int:
        """How many of these, from the first, would show no solution of each other."""
        return self.icl.strangers(problems) if "icl" in self.wanted else len(problems)

    def answer(self, answered: Sequence[Answered], remembered: Sequence[Remembered]) -> list[dict[str, Arm]]:
        """Per problem what each baseline says, of those that have something to go on. The problems were answered by
        the agent, which is about to remember them."""
        problems = [one.problem for one in answered]
        said: list[dict[str, Arm]] = [{} for _ in answered]
        if "icl" in self.wanted:
            _, helped = self.icl.ask(problems, np.stack([one.key for one in answered]))
            for arms, (responses, notes) in zip(said, helped, strict=True):
                if responses is not None:
                    arms["icl"] = Arm.of(responses, **notes)
        if "random" in self.wanted:
            for arms, drawn in zip(said, random_memory(self.agent, answered), strict=True):
                if drawn is not None:
                    arms["random"] = Arm.of(drawn[1], memory_id=drawn[0])
        if "verified" in self.wanted:
            for arms, one, chosen in zip(said, answered, verified(self.agent, answered), strict=True):
                arms["verified"] = Arm(*chosen, one.zero_shot.tokens)
        for name, count in (("majority", self._rollouts), ("vote", self._seen)):
            if name in self.wanted:
                spent = [count(*pair) for pair in zip(answered, remembered, strict=True)]
                for arms, arm in zip(said, self._voted(problems, answered, spent), strict=True):
                    arms[name] = arm
        return said

    def _voted(self, problems: Sequence[Problem], answered: Sequence[Answered], counts: Sequence[int]) -> list[Arm]:
        """The votes over so many zero-shot rollouts of each problem, beginning with those that were drawn."""
        more, arms = self.world.rollouts(problems, counts, [one.zero_shot.samples for one in answered]), []
        for one, rollouts in zip(answered, more, strict=True):
            held = one.zero_shot.answers
            answers = [*held, *(one.zero_shot.task.extract(drawn.text) for drawn in rollouts[len(held) :])]
            arms.append(Arm(answers, None, sum(len(rollout.token_ids) for rollout in rollouts)))
        return arms

    def learn(self, answered: Sequence[Answered]) -> None:
        """Keep what ICL will show."""
        if "icl" in self.wanted:
            self.icl.learn([one.problem for one in answered], [Reply.of(one.zero_shot, one) for one in answered])

    def _rollouts(self, one: Answered, result: Remembered) -> int:
        """Rollouts that Tacit spent on a problem: answers with and without memory, and learning."""
        arms = 1 + (one.memory is not None)
        return arms * (self.agent.sampling.samples + 1) + len(result.learned.steps) * self.agent.learning.rollouts

    def _seen(self, one: Answered, result: Remembered) -> int:
        """Samples that routing chose from: without memory, and with the recalled one."""
        return (1 + (one.memory is not None)) * self.agent.sampling.samples


def random_memory(
    agent: Agent, answered: Sequence[Answered], *, unlike: bool = False
) -> list[tuple[str, Responses] | None]:
    """(memory id, responses) under a memory drawn from all active ones; None while there is none, and where it leaves
    no room for an answer.

    Args:
        agent: whose memories, in whose namespace.
        answered: the problems.
        unlike: draw from the half that is least similar to the problem, and so hardly ever from the right kind.
    """
    active = [info.id for info in agent.bank.find(agent.namespace, states=[State.ACTIVE])]
    if not active:
        return [None] * len(answered)
    chosen, requests = {}, []
    for place, one in enumerate(answered):
        rng = generator(agent.seed, one.problem.id, "random-memory")
        among = _least_similar(agent, one, len(active)) if unlike else active
        memory = agent.bank.get(among[int(rng.integers(len(among)))], agent.namespace)
        ids = agent.backbone.encode(one.problem.text)
        if agent.responder.room(agent.backbone.carrier.columns(memory.prompt) + len(ids)) >= 0:
            chosen[place] = memory.id
            requests += agent.responder.requests(one.problem, ids, "random", memory.prompt)
    asked = [answered[place].problem for place in chosen]
    drawn = dict(zip(chosen, agent.responder.generate(requests, asked), strict=True))
    return [(chosen[place], drawn[place]) if place in chosen else None for place in range(len(answered))]


def _least_similar(agent: Agent, one: Answered, count: int) -> list[str]:
    """Ids of the less similar half of ``count`` active memories."""
    hits = agent.bank.search(
        one.key,
        namespace=agent.namespace,
        fingerprint=agent.backbone.fingerprint,
        key_kind=agent.recalling.key,
        k=count,
    )
    return [hit.memory_id for hit in hits[len(hits) // 2 :]]


def verified(agent: Agent, answered: Sequence[Answered]) -> list[tuple[list[str | None], str | None]]:
    """(sampled answers, greedy answer) when the verifier chooses between two zero-shot responses: each sample and the
    next, the greedy one and the first sample."""
    results = []
    for one in answered:
        *samples, greedy = one.zero_shot.candidates()
        first, second = [*samples, greedy], [*samples[1:], samples[0], samples[0]]
        routes = route(one.problem.text, list(zip(first, second, strict=True)), agent.verifier)
        answers = [
            b.answer if decided.takes_memory else a.answer for decided, a, b in zip(routes, first, second, strict=True)
        ]
        results.append((answers[:-1], answers[-1]))
    return results
