"""Mathematics: an answer in ``\\boxed{}`` or after "the answer is", compared by value.

Builds on answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.answers import vote
from tacit.registry import register
from tacit.tasks.base import Task


@register("task", "maths")
class Maths(Task):
    """A number or an expression, compared by value."""

    instruction = "Please reason step by step, and put your final answer within \\boxed{}."

    def extract(self, text: str) -> str | None:
        return vote.extract(text)

    def same(self, one: str, other: str) -> bool:
        return vote.equivalent(one, other)

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        return vote.group(answers)


MATHS = Maths()
