"""Offline test-time reinforcement learning (TTRL, arXiv 2504.16084): one policy for the whole test set, no labels.

Builds on training. Before the first answer it trains on *all problems of the stream*, which it therefore sees in
advance; an online method must not. Rewards are agreement with a majority vote: of each step's own group, as in the
paper, or of the frozen model's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.methods.base import Lesson, Reply
from tacit.methods.planning import Plan, Setting, Work, answering, training
from tacit.methods.training import Seen, Trained, Trainer, by_label, by_own_vote, variant, vote_gate
from tacit.problem import Problem


class TTRL(Trained):
    """Trains on the stream, then answers it.

    Options:
        lr, epochs, batch: of the training; ``batch`` problems a step.
        label: "renewed" (the vote of the step's own group) or "zero-shot" (of the frozen model's answers, for good).
        gate: whether problems with a weak vote are left out, as memories do (not in the paper).
        votes: rollouts that vote; 0 for those that are trained on. The paper votes over 64 and trains on 32.
        rank: of LoRA.
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-4,
        "epochs": 12,
        "batch": 12,
        "label": "renewed",
        "gate": False,
        "votes": 0,
    }

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        options = setting.options
        count = setting.problems
        work = [training(setting, "prepare", count, options["epochs"], options["batch"], options["votes"])]
        if options["label"] == "zero-shot":
            work.append(Work("prepare", count * setting.responses, 1))
        return Plan((*work, answering(setting)), cls.kind, options.get("rank", 0))

    def prepare(self) -> None:
        world, options = self.world, self.options
        if self.choice("label", "renewed", "zero-shot") == "renewed":
            judge = by_own_vote(world, options["gate"])
        else:
            judge = by_label(world, self._zero_shot_labels())
        trainer = Trainer(self.policy, world, options["lr"], self.name, options["votes"])
        self._history: list[list[Seen]] = list(trainer.epochs(world.stream, judge, options["epochs"], options["batch"]))
        self._places = {problem.id: place for place, problem in enumerate(world.stream)}
        self.gradient_steps = trainer.steps

    def _zero_shot_labels(self) -> dict[str, str]:
        world, gate = self.world, vote_gate(self.world)
        votes = [responses.vote for responses in world.responder.ask(world.stream)]
        return {
            problem.id: vote.answer
            for problem, vote in zip(world.stream, votes, strict=True)
            if vote.answer is not None and not (self.options["gate"] and gate(vote))
        }

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Lesson] | None:
        """Learns nothing more; says what was learned from these problems beforehand."""
        if not self._history:
            return None
        return [self._lesson([epoch[self._places[problem.id]] for epoch in self._history]) for problem in problems]

    def _lesson(self, seen: Sequence[Seen]) -> Lesson:
        used = sum(one.used for one in seen)
        why = f"it had a gradient in {used} of {len(seen)} epochs"
        return Lesson(seen[-1].label, used > 0, why, {"rewards": [one.reward for one in seen]})


variant(TTRL, "ttrl-full", "Of all weights, as in the paper.")
variant(TTRL, "ttrl-lora", "Of LoRA adapters.", "lora", lr=1e-3, rank=8)
variant(TTRL, "ttrl-soft", "Of one soft prompt for all problems.", "soft", lr=3e-2)
