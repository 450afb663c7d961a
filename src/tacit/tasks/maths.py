r"""Mathematics: an answer in ``\boxed{}`` or after "the answer is", compared by value.

Builds on answers.

    >>> responses = ["so \\boxed{12}", "Answer: 12", "the answer is 14", "no idea"]
    >>> MATHS.vote([MATHS.extract(response) for response in responses]).why
    '2 of 4 say 12; next: 1 says 14; 1 gave no answer'
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.answers import equivalence, extraction
from tacit.registry import register
from tacit.tasks.base import Task


@register("task", "maths")
class Maths(Task):
    """A number or an expression, compared by value."""

    instruction = "Please reason step by step, and put your final answer within \\boxed{}."

    def extract(self, text: str) -> str | None:
        return extraction.extract(text)

    def same(self, one: str, other: str) -> bool:
        return equivalence.equivalent(one, other)

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        return equivalence.group(answers)


MATHS = Maths()
