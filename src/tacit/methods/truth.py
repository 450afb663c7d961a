"""Truth: an agent that is told the right answer. It must score 100 %, or the scorer is broken.

Builds on the method protocol. StreamBench's sanity run (arXiv 2406.08747).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tacit.methods.base import Method, Reply
from tacit.methods.planning import Plan, Setting
from tacit.problem import Problem
from tacit.registry import register


@register("method", "truth")
class Truth(Method):
    """Says what the oracle says."""

    uses_labels: ClassVar[bool] = True
    probed: ClassVar[bool] = False

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        return Plan(())

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        assert self.world.oracle is not None
        told = [self.world.oracle.truth(problem.id) for problem in problems]
        return [Reply((answer,), answer) for answer in told]
