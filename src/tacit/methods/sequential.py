"""Online sequential TTRL: one set of weights that goes through the stream and changes with every window.

Builds on training. What ELM keeps apart, this one writes into the same weights: it may gain more, and it may forget.
Online like ELM: a window is answered first and learned from after, with the vote of those answers as the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.labels import Evidence, Label, choose
from tacit.methods.base import Lesson, Reply, World
from tacit.methods.planning import Plan, Setting, answering, training
from tacit.methods.training import Seen, Trained, Trainer, by_label, variant, vote_gate
from tacit.problem import Problem
from tacit.responses import Responses


class Sequential(Trained):
    """Answers a window, trains on it, goes on.

    Options:
        lr: of the training; Adam's moments go through the stream too.
        steps: passes over the problems of a window, ``batch`` problems a gradient step.
        label: "answers" (the vote of the answers just given) or "verified" (the same, weighted by the reward model, as
            ELM does; not in TTRL).
        rank: of LoRA.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"lr": 1e-4, "steps": 10, "batch": 4, "label": "answers"}

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        options = setting.options
        work = [training(setting, "learn", size, options["steps"], options["batch"]) for size in setting.windows]
        return Plan((answering(setting), *work), cls.kind, options.get("rank", 0))

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.choice("label", "answers", "verified")
        self._gate = vote_gate(world)
        self._trainer = Trainer(self.policy, world, self.options["lr"], self.name)

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        return [Reply.of(responses, responses) for responses in self.policy.respond(problems)]

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Lesson]:
        found = [self._label(problem, reply.state) for problem, reply in zip(problems, replies, strict=True)]
        refusals = [
            None if label.trusted else self._gate(label.vote) or (label.why if label.answer is None else None)
            for label in found
        ]
        chosen = [problem for problem, refusal in zip(problems, refusals, strict=True) if refusal is None]
        labels = {problem.id: label.answer for problem, label in zip(problems, found, strict=True) if label.answer}
        history = list(
            self._trainer.epochs(chosen, by_label(self.world, labels), self.options["steps"], self.options["batch"])
        )
        self.gradient_steps = self._trainer.steps
        taken = {problem.id: [seen[place] for seen in history] for place, problem in enumerate(chosen)}
        return [
            Lesson(label.answer, False, refusal) if refusal else self._lesson(label.answer, taken[problem.id])
            for problem, label, refusal in zip(problems, found, refusals, strict=True)
        ]

    def _label(self, problem: Problem, responses: Responses) -> Label:
        how = "verified" if self.options["label"] == "verified" else "zero-shot"
        return choose(how, Evidence.of(problem.text, responses, None, (), self.world.verifier))

    def _lesson(self, label: str | None, seen: Sequence[Seen]) -> Lesson:
        used = sum(one.used for one in seen)
        why = f"it had a gradient in {used} of {len(seen)} passes"
        return Lesson(label, used > 0, why, {"rewards": [one.reward for one in seen]})


variant(Sequential, "sequential-full", "Of all weights.")
variant(Sequential, "sequential-lora", "Of LoRA adapters.", "lora", lr=1e-3, batch=12, rank=8)
