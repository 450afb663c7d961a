"""What most tasks share: a response states its answer, and the task reads what is stated.

Builds on answers, which finds the statement: a box, ``<answer>`` tags, a cue such as "the answer is".
"""

from __future__ import annotations

import re
from abc import abstractmethod

from tacit.answers import vote
from tacit.tasks.base import Task

TAIL = 20_000
"""Where nothing is stated, so many last characters of a response are looked at."""

RUN_ON = ("\nQuestion:", "\nProblem:", "\nQ:")

_GOES_ON = re.compile(r"[ ]?[,;](?:[^.\n]|\.(?!\s|$))*")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)


def unthought(text: str) -> str:
    """A response without what it only thought; a thought that does not end is nothing but thought."""
    return _THOUGHT.sub("", text).rpartition("</think>")[2]


def statement(text: str) -> str | None:
    """The answer as a response states it, None where it states none."""
    return vote.extract(unthought(text))


def sentence(said: str, phrase: str) -> str:
    """A statement to the end of its sentence, where it was cut at a comma: the answer may have several parts."""
    place = said.rfind(phrase)
    more = None if place < 0 else _GOES_ON.match(said, place + len(phrase))
    return phrase if more is None else phrase + more[0]


def matched(text: str, pattern: str) -> str | None:
    """Where a user's regular expression matches last in a response: its group 1, or all of it if it has no group."""
    return vote._by_pattern(unthought(text), pattern)


class Stated(Task):
    """A task that reads statements, and what nobody called an answer only where it says so."""

    stop = RUN_ON

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        found = None if phrase is None else self.read(phrase)
        return found if found is not None else self.unstated(unthought(text)[-TAIL:].strip())

    @abstractmethod
    def read(self, phrase: str) -> str | None:
        """The answer that a phrase is, which was stated as one; None if it is none."""

    def unstated(self, text: str) -> str | None:
        """The answer in the end of a response that states none that can be read."""
        return None
