"""Zero-shot: the frozen model as it is, sampled and greedy. What every gain is measured against.

Builds on the method protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.methods.base import Method, Reply
from tacit.problem import Problem
from tacit.registry import register


@register("method", "zero-shot")
class ZeroShot(Method):
    """Answers without any memory."""

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        world = self.world
        requests = [
            request
            for problem in problems
            for request in world.responder.requests(problem, world.backbone.encode(problem.text), "zero-shot")
        ]
        return [Reply.of(responses) for responses in world.responder.generate(requests)]
