"""Majority vote: one answer from many zero-shot rollouts, the plain use of the compute that learning costs.

Builds on the method protocol and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.methods.base import Method, Reply
from tacit.methods.planning import Plan, Setting, Work
from tacit.problem import Problem
from tacit.registry import register


@register("method", "majority")
class Majority(Method):
    """The most common of ``n`` sampled answers (default 64: about what ELM spends on a problem of the testbed)."""

    probed: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {"n": 64}

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        return Plan((Work("answer", setting.problems * int(setting.options["n"]), len(setting.windows)),))

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        n, replies = int(self.options["n"]), []
        for problem, rollouts in zip(problems, self.world.rollouts(problems, [n] * len(problems)), strict=True):
            task = self.world.task.on(problem.text)
            vote = task.vote([task.extract(rollout.text) for rollout in rollouts])
            replies.append(Reply((vote.answer,), vote.answer, {"votes": vote.votes, "n": n}))
        return replies
