"""A method in one file, with an option: it guesses."""

from collections.abc import Sequence
from typing import Any, ClassVar

from tacit import Problem, register
from tacit.methods.base import Method, Reply


@register("method", "guess")
class Guess(Method):
    """Says the same to every problem."""

    defaults: ClassVar[dict[str, Any]] = {"says": "42"}

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        says = self.options["says"]
        return [Reply((says,), says, notes={"guessed": True}) for _ in problems]
