"""Majority vote: one answer from many zero-shot rollouts, the plain use of the compute that learning costs.

Builds on the method protocol and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.engines.base import Rollout
from tacit.methods.base import Method, Reply
from tacit.methods.planning import Plan, Setting, Work
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks.base import Task


@register("method", "majority")
class Majority(Method):
    """The most common of ``n`` sampled answers (default 64: about what ELM spends on a problem of the testbed)."""

    probed: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {"n": 64}

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        return Plan((Work("answer", setting.problems * int(setting.options["n"]), len(setting.windows)),))

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        drawn = self.world.rollouts(problems, [int(self.options["n"])] * len(problems))
        return [
            self.told(rollouts, self.world.task.on(problem.text))
            for problem, rollouts in zip(problems, drawn, strict=True)
        ]

    def told(self, rollouts: Sequence[Rollout], task: Task) -> Reply:
        """The one answer to a problem that has been answered so often."""
        vote = task.vote([task.extract(rollout.text) for rollout in rollouts])
        return Reply((vote.answer,), vote.answer, {"votes": vote.votes, "n": len(rollouts)})
