"""Offline test-time reinforcement learning (TTRL, arXiv 2504.16084): one policy for the whole test set, no labels.

Builds on training. Before the first answer it trains on *all problems of the stream*, which it therefore sees in
advance; an online method must not. Rewards are agreement with the majority vote of each step's own group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.methods.base import Lesson, Reply
from tacit.methods.planning import Plan, Setting, answering, training
from tacit.methods.training import Seen, Trained, Trainer, by_own_vote, variant
from tacit.problem import Problem


class TTRL(Trained):
    """Trains on the stream, then answers it.

    Options:
        lr, epochs, batch: of the training; ``batch`` problems a step.
        votes: rollouts that vote; 0 for those that are trained on. The paper votes over 64 and trains on 32.
        rank: of LoRA.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-4, "epochs": 12, "batch": 12, "votes": 0}

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        options = setting.options
        work = training(setting, "prepare", setting.problems, options["epochs"], options["batch"], options["votes"])
        return Plan((work, answering(setting)), cls.kind, options.get("rank", 0))

    def prepare(self) -> None:
        world, options, judge = self.world, self.options, by_own_vote(self.world)
        trainer = Trainer(self.policy, world, options["lr"], self.name, options["votes"])
        self._history: list[list[Seen]] = list(trainer.epochs(world.stream, judge, options["epochs"], options["batch"]))
        self._places = {problem.id: place for place, problem in enumerate(world.stream)}
        self.gradient_steps = trainer.steps

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
