"""Per-instance GRPO: every problem gets a policy of its own, trained on it alone and thrown away after the answer.

Builds on training. Test-time training without memory, as LatentSeek (arXiv 2505.13308) does it in latent space and the
paper's motivating experiment does with all weights: nothing goes from one problem to the next. The label is the vote
of the frozen model's answers; a problem whose vote is too weak keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tacit.methods.base import Lesson, Reply
from tacit.methods.planning import Plan, Setting, answering, training
from tacit.methods.training import Seen, Trained, Trainer, by_label, variant, vote_gate
from tacit.problem import Problem
from tacit.responses import Responses


@dataclass(frozen=True)
class _Trace:
    """What was done for one problem: gradient steps, and a lesson for the record."""

    steps: int
    lesson: Lesson


class Instance(Trained):
    """Trains for a problem, answers it, forgets.

    Options:
        lr: of the training.
        steps: gradient steps per problem; 0 for as many groups as a memory takes.
        rank: of LoRA.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-4, "steps": 10}
    probed: ClassVar[bool] = False

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        alone = replace(setting, window=1)
        steps = setting.options["steps"] or setting.learning.steps
        work = training(alone, "answer", setting.problems, steps, 1)
        return Plan((answering(setting), work, answering(alone)), cls.kind, setting.options.get("rank", 0))

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        world, gate = self.world, vote_gate(self.world)
        replies = []
        for problem, plain in zip(problems, world.responder.ask(problems), strict=True):
            arms = {"zero_shot": (plain.answers, plain.greedy_answer)}
            refusal = gate(plain.vote)
            if refusal:
                trace = _Trace(0, Lesson(plain.vote.answer, False, refusal))
                replies.append(Reply(plain.answers, plain.greedy_answer, {"trained": False}, arms, trace))
                continue
            responses, trace = self._trained(problem, str(plain.vote.answer))
            replies.append(Reply(responses.answers, responses.greedy_answer, {"trained": True}, arms, trace))
        return replies

    def _trained(self, problem: Problem, label: str) -> tuple[Responses, _Trace]:
        self.policy.reset()
        trainer = Trainer(self.policy, self.world, self.options["lr"], self.name)
        judge = by_label(self.world, {problem.id: label})
        steps = self.options["steps"] or self.world.learning.steps
        seen: list[Seen] = [trainer.step([problem], judge, step)[0] for step in range(steps)]
        [responses] = self.policy.respond([problem])
        why = f"{trainer.steps} of its {steps} groups differed in reward"
        return responses, _Trace(trainer.steps, Lesson(label, False, why, {"rewards": [one.reward for one in seen]}))

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Lesson]:
        """Learns nothing; counts what answering took, and tells."""
        traces: list[_Trace] = [reply.state for reply in replies]
        self.gradient_steps += sum(trace.steps for trace in traces)
        return [trace.lesson for trace in traces]


variant(Instance, "instance-full", "Of all weights.")
variant(Instance, "instance-lora", "Of LoRA adapters.", "lora", lr=3e-3, rank=8)
