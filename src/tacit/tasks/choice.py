"""Multiple choice: an answer is an option's text, whatever letter it had.

Builds on stated, options (how the options stand in a problem's text) and text (when an option's text is said).
"""

from __future__ import annotations

import copy
import hashlib
import re
from itertools import pairwise

from tacit.errors import ConfigError, DataError
from tacit.registry import register
from tacit.tasks import options
from tacit.tasks.number import value
from tacit.tasks.stated import Stated, statement
from tacit.tasks.text import fold, key

SHUFFLED = "shuffled"
LINES = 40
"""Where no option is stated, so many last lines are looked at, and the first."""

_LATEX = re.compile(r"\\(?:text|textbf|mathbf|mathrm|bf)\b|[{}$*_`\"“”]|\\[ ,;()\[\]]?")
# "B", "(B)", "B) Paris", "B. Paris", "B: Paris", "B, because", "option B is"; a small letter only in brackets or alone.
_LABEL = re.compile(
    r"\s*(?P<said>(?i:(?:the )?(?:correct |right |best )?(?:option|choice|answer|letter)(?: is)?:? ))?(?:"
    r"[(\[](?P<enclosed>[A-Za-z]|\d{1,2})[)\]]|(?P<marked>[A-Z]|\d{1,2})(?=[).\]:,;]?$|[).\]:]\s)"
    r"|(?P<small>[a-z])(?=\)|\.?$)|(?P<bare>[A-Z])(?= (?:is|because|since|as)\b| [-–—]))"
)
_DENIED = re.compile(r"\b(?:not|never|neither|cannot|except)\b|n['’]t\b", re.IGNORECASE)
_JUDGED = re.compile(r"\b(?:is|as|the) (?:the )?(?:correct|right|best|true)\b|✓|✅|✔", re.IGNORECASE)
_WRONG = re.compile(
    r"\b(?:is|are|be) (?:not|wrong|incorrect|false)\b|\b(?:is|are)n['’]t\b|[-:] no\b|✗|❌", re.IGNORECASE
)
_SEVERAL = re.compile(r"[(\[]?[A-H][)\]]?(?: ?, ?| ?[/&] ?| (?:and|or) )[(\[]?[A-H](?![\w'’]|\.\w| is\b)")
# What opens a line of a list, or a sentence that concludes.
_MARKER = re.compile(r"(?:(?i:step )?\d{1,2}[.):] (?=.)|[-•] )+")
_SO = re.compile(r"(?i:so|thus|hence|therefore|it is|it's|i (?:would )?(?:choose|pick|select|say)),? (?=[(\[]?[A-Z]\b)")
_NAMED = re.compile(
    r"\b(?i:option|choice|answer)(?: is)?:? \(?([A-Z])\b(?!['’]|\.\w)"
    r"(?! ?(?:,|/|&|and|or) ?\(?[A-H]\b| is (?:not|wrong|incorrect|false)\b)"
)


@register("task", "choice")
class Choice(Stated):
    """One of several options, by its letter or its text.

    The options are those of the problem's text; votes go by option, whatever letter it had.

    Args:
        how: "shuffled" for other orders of the options, one for each response: a liking for a letter helps no option;
            "" for the order of the data.
    """

    form = f"choice[:{SHUFFLED}]"
    instruction = 'Please reason step by step, and end with "The answer is" and the letter of the right option.'

    def __init__(self, how: str = "") -> None:
        if how not in ("", SHUFFLED):
            raise ConfigError(f"the task choice has no form {how!r}; use choice, or choice:{SHUFFLED}")
        self.how = how
        self.options: list[str] = []
        self.numbered = False  # whether the problem's own labels are numbers

    def on(self, problem: str) -> Choice:
        bound = copy.copy(self)
        _, bound.options, labels = options.find(problem)
        bound.numbered = bool(labels) and labels[0].isdigit()
        return bound

    def shown(self, problem: str, number: int) -> str:
        question, given = options.split(problem)
        if not (self.how and number and given):
            return problem

        def drawn(option: str) -> bytes:
            return hashlib.sha256(f"{problem}\0{number}\0{option}".encode()).digest()

        return options.with_options(question, sorted(given, key=drawn))

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        if self.options and phrase is not None and value(phrase) is not None and self.read(phrase) is None:
            return None  # a number that is no option: whoever states it chose none
        return super().extract(text)

    def read(self, phrase: str) -> str | None:
        said = " ".join(_LATEX.sub(" ", phrase).split())
        whole = self._whole(said) if len(said) > 1 else None  # "E. coli" is an option, "E" the letter of one
        found = whole or self._labelled(said) or self._whole(said)
        return found or (self._within(said) if self._label(said)[0] is None else None)

    def unstated(self, text: str) -> str | None:
        lines = self._said(text)
        for line in (*lines[-1:], *lines[:1]):
            found = self._whole(line) or self._labelled(_SO.sub("", line, count=1))
            if found and not _WRONG.search(line[:60]):
                return found
        last = lines[-1] if lines else ""
        if not _DENIED.search(last) and self._label(last)[0] is None and (found := self._within(last)):
            return found
        named = {self._at(label) for label in _NAMED.findall(text)} - {None}
        return named.pop() if len(named) == 1 else None

    def _said(self, text: str) -> list[str]:
        """The lines of a response, but for those that go through the options: labels or options in the problem's order,
        one a line, or several in one line. A line that calls its option the right one stays."""
        lines = [" ".join(_LATEX.sub(" ", line).split()) for line in text.splitlines() if line.strip()]
        if not self.numbered:
            lines = [_MARKER.sub("", line) for line in lines]
        lines = [*lines[:1], *lines[1:][-LINES:]]
        places = [(number, place) for number, line in enumerate(lines) if (place := self._place(line)) is not None]
        listed: set[int] = set()
        for (one, before), (other, after) in pairwise(places):
            listed |= {one, other} if before < after else set()
        return [line for number, line in enumerate(lines) if number not in listed and len(options.options(line)) < 2]

    def _place(self, line: str) -> int | None:
        """Which option a line gives; None if it gives none, is but a letter, or calls its option the right one."""
        option = None if len(line) < 3 or _JUDGED.search(line) else self._whole(line) or self._labelled(line)
        return self.options.index(option) if option in self.options else None

    def _at(self, label: str) -> str | None:
        """The option of a label; the label itself, a letter, where no options are known."""
        if not self.options:
            return label.upper() if label.isalpha() else None
        if label.isdigit() and any(value(option) is not None for option in self.options):
            return None  # more likely an option than the number of one
        place = int(label) - 1 if label.isdigit() else ord(label.upper()) - ord("A")
        return self.options[place] if 0 <= place < len(self.options) else None

    def _label(self, said: str) -> tuple[str | None, str]:
        """The option of the label that a text begins with, and what follows it."""
        match = _LABEL.match(said)
        if match is None:
            return None, said
        label = next(filter(None, (match[name] for name in ("enclosed", "marked", "small", "bare"))))
        return self._at(label), said[match.end() :].lstrip(").]:,; ")

    def _labelled(self, said: str) -> str | None:
        option, rest = self._label(said)
        match = _LABEL.match(said)
        if match is None or _SEVERAL.match(said, len(match["said"] or "")):
            return None
        return option if self._whole(rest) in (None, option) else None  # "B) Dog", where Dog is A

    def _whole(self, said: str) -> str | None:
        return next((option for option in self.options if key(option) == key(said)), None)

    def _within(self, said: str) -> str | None:
        """The only option whose words are among those said; the longer of two where one is part of the other."""
        words = f" {fold(said)} "
        found = {fold(option): option for option in self.options if f" {fold(option)} " in words}
        longest = [name for name in found if not any(name != other and f" {name} " in f" {other} " for other in found)]
        return found[longest[0]] if len(longest) == 1 else None

    def same(self, one: str, other: str) -> bool:
        return key(one) == key(other)

    def gold(self, written: str) -> str:
        found = self.read(written) or self.read(statement(written) or "")
        if found is None:
            there = f"none of the options, which are: {', '.join(self.options)[:300]}"
            there = there if self.options else "no letter, and the problem shows no options"
            raise DataError(f"{written[:80]!r} is {there}")
        return found
