"""What most tasks share: a response states its answer, and the task reads what is stated.

Builds on answers, which finds the statement: a box, ``<answer>`` tags, a cue such as "the answer is".
"""

from __future__ import annotations

import re
from abc import abstractmethod

from tacit.answers import extraction
from tacit.answers.extraction import RUN_ON, cleaned, parts
from tacit.errors import DataError
from tacit.tasks.base import Task

TAIL = 20_000
"""So many last characters of a response are looked at where nothing is stated; a longer statement is none."""

# A list's marker with nothing after it, where a response was cut; it follows an item, or a line that opens a list.
_MARKER = re.compile(r"\n[ \t]*(?:(?P<one>1[.)]|[-*•])|\d{1,2}[.)])\Z")
_OPENED = re.compile(r":[*_]{0,3}\Z")
_ITEM = re.compile(r"(?:^|\n)[ \t]*(?:\d{1,2}[.)]|[-*•])[ \t]+\S[^\n]*\Z")

_GOES_ON = re.compile(r"[ ]?[,;](?:[^.\n]|\.(?!\s|$))*")


def statement(text: str) -> str | None:
    """The answer as a response states it, None where it states none."""
    found = extraction.stated(text)
    return None if found is None or len(found) > TAIL else found


def ending(text: str) -> str:
    """The end of what a response says: without thoughts, and without what a base model runs on into."""
    said = next((part for part in parts(cleaned(text)) if part.strip()), "")
    said = said[-TAIL:].strip()
    if marker := _MARKER.search(said):
        before = said[: marker.start()].rstrip()
        if _ITEM.search(before) or (marker["one"] and _OPENED.search(before)):
            return before
    return said


def sentence(said: str, phrase: str) -> str:
    """A statement to the end of its sentence, where it was cut at a comma: the answer may have several parts."""
    place = said.rfind(phrase)
    more = None if place < 0 else _GOES_ON.match(said, place + len(phrase))
    return phrase if more is None else phrase + more[0]


def matched(text: str, pattern: str) -> str | None:
    """Where a user's regular expression matches last in a response: its group 1, or all of it if it has no group."""
    return extraction.by_pattern(cleaned(text), pattern)


class Stated(Task):
    """A task that reads statements, and what nobody called an answer only where it says so."""

    stop = RUN_ON
    wanted = "an answer"  # what a reference answer has to be, in words

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        found = None if phrase is None else self.read(phrase)
        return found if found is not None else self.unstated(ending(text))

    @abstractmethod
    def read(self, phrase: str) -> str | None:
        """The answer that a phrase is, which was stated as one; None if it is none."""

    def unstated(self, text: str) -> str | None:
        """The answer in the end of a response that states none that can be read."""
        return None

    def gold(self, written: str) -> str:
        phrase = statement(written)
        found = self.read(written if phrase is None else phrase)
        if found is None:
            raise DataError(f"{written[:80]!r} is not read as {self.wanted}")
        return found
