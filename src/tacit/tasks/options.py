"""Options of a multiple-choice problem: they stand in the problem's text, as lines "A) text" below the question.

Builds on errors. ``with_options`` writes them there; ``split`` finds them again, also as people write them: lines that
begin with "A) ", "A. ", "(A) ", "A: ", "1) " or "1. ", and "(A) x (B) y (C) z" or "A) x B) y" within a line.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tacit.errors import DataError

MOST = len(string.ascii_uppercase)

# At the start of a line, any label; within a line only "(A)" and "A)": "vitamin A. Sugar" is no option.
_LINE = re.compile(r"^[ \t]*(?P<open>\(?)(?P<label>[A-Za-z]|\d{1,2})(?P<close>\)|[.:](?=[ \t]|$))[ \t]*", re.MULTILINE)
_WITHIN = re.compile(r"(?:^|(?<=\s))(?P<open>\(?)(?P<label>[A-Z])(?P<close>\))[ \t]*", re.MULTILINE)


def letters(count: int) -> str:
    """The letters of so many options, in order: 4 -> "ABCD".

    Raises:
        DataError: fewer than 2 or more than 26.
    """
    if not 2 <= count <= MOST:
        raise DataError(f"a multiple-choice problem has 2 to {MOST} options, not {count}")
    return string.ascii_uppercase[:count]


def with_options(text: str, options: Sequence[str]) -> str:
    """The question, then a line "A) text" per option; what ``split`` takes apart. An option becomes one line."""
    lines = [f"{letter}) {' '.join(one.split())}" for letter, one in zip(letters(len(options)), options, strict=True)]
    return "\n".join([text.rstrip(), *lines])


def split(text: str) -> tuple[str, list[str]]:
    """The question without its options, and the options in order; all of the text and [] where it has none.

    The last run of labels that begins with A (a, 1) and goes on without a gap, two at least and all written alike, is
    the options. An option goes up to the next label, the last one to the end of its line; what follows stays with the
    question.
    """
    for pattern in (_LINE, _WITHIN):
        labels = list(pattern.finditer(text))
        for first in reversed(range(len(labels))):
            run = _run(labels[first:])
            if len(run) >= 2:
                end = text.find("\n", run[-1].end())
                end = len(text) if end < 0 else end
                stops = [*(one.start() for one in run[1:]), end]
                found = [" ".join(text[one.end() : stop].split()) for one, stop in zip(run, stops, strict=True)]
                parts = (text[: run[0].start()].rstrip(), text[end:].strip())
                return "\n".join(part for part in parts if part), found
    return text, []


def options(text: str) -> list[str]:
    """The options that stand in a problem's text, in order; [] where there are none."""
    return split(text)[1]


def _run(labels: list[re.Match[str]]) -> list[re.Match[str]]:
    """The labels that go on from the first one, if that is an A, a or 1; those written otherwise are no labels here."""
    first = labels[0]
    if first["label"] not in ("A", "a", "1"):
        return []
    run = [first]
    for label in labels[1:]:
        alike = (label["open"], label["close"]) == (first["open"], first["close"])
        if alike and label["label"] == _following(run[-1]["label"]):
            run.append(label)
    return run


def _following(label: str) -> str:
    return str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1)
