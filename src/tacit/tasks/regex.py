"""A pattern of the user's own, ``regex:PATTERN``: where it matches last, there is the answer.

Builds on stated, whose search of a pattern has a limit. text says when two answers are the same.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

from tacit.config import require
from tacit.errors import ConfigError
from tacit.registry import register
from tacit.tasks.base import Task
from tacit.tasks.stated import matched
from tacit.tasks.text import Text


class Around(Task):
    """A task around another one, which reads and compares the answers.

    Args:
        inner: the other one.
        pattern: a regular expression that says where an answer is; None to leave that to the other one too.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, inner: Task, pattern: str | None) -> None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ConfigError(f"the pattern {pattern!r} is no regular expression: {error}") from None
        self.inner = inner
        self.pattern = pattern

    def on(self, problem: str) -> Task:
        bound = copy.copy(self)
        bound.inner = self.inner.on(problem)
        return bound

    def shown(self, problem: str, number: int) -> str:
        return self.inner.shown(problem, number)

    def extract(self, text: str) -> str | None:
        if self.pattern is None:
            return self.inner.extract(text)
        found = matched(text, self.pattern)
        read = getattr(self.inner, "read", None)
        return found if found is None or read is None else read(found)

    def same(self, one: str, other: str) -> bool:
        return self.inner.same(one, other)

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        return self.inner.group(answers)

    def gold(self, written: str) -> str:
        return self.inner.gold(written)

    def right(self, answers: Sequence[str | None], gold: str) -> list[bool]:
        return self.inner.right(answers, gold)


@register("task", "regex")
class Regex(Around):
    """What a pattern finds last, compared as text.

    Its group 1, or all of it where it has no group.
    """

    form = "regex:PATTERN"

    def __init__(self, pattern: str) -> None:
        require(bool(pattern), "the task regex needs a pattern, as in --task 'regex:Result: (.+)'")
        super().__init__(Text(), pattern)
