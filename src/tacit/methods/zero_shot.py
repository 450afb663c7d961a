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
        answered = self.world.responder.ask(problems)
        return [Reply.of(responses) for responses in answered]
