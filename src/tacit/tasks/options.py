"""Options of a multiple-choice problem: they stand in the problem's text, as lines "A) text" below the question.

Builds on errors. ``with_options`` writes them there; ``find`` and ``split`` find them again, also as people write
them: lines that begin with "A) ", "A. ", "(A) ", "A: ", "1) " or "1. ", and "(A) x (B) y (C) z" (or "(1) x (2) y",
"A) x B) y") within a line. ``options_of`` and ``letter_of`` read what data has in fields of their own.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from tacit.errors import DataError

MOST = len(string.ascii_uppercase)

# At the start of a line, any label; within a line only "(A)", "(1)" and "A)": "vitamin A. Sugar" is no option.
_LINE = re.compile(r"^[ \t]*(?P<open>\(?)(?P<label>[A-Za-z]|\d{1,2})(?P<close>\)|[.:](?=[ \t]|$))[ \t]*", re.MULTILINE)
_WITHIN = re.compile(r"(?:^|(?<=\s))(?P<open>\(?)(?P<label>[A-Z]|(?<=\()\d{1,2})(?P<close>\))[ \t]*", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:]+\s*(.*))?", re.DOTALL)


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


class Found(NamedTuple):
    """A question, its options in order, and the labels that they have in its text."""

    question: str
    options: list[str]
    labels: list[str]


def find(text: str) -> Found:
    """A problem's text taken apart; all of it is the question where it has no options.

    The options are the last run of labels that begins with A (a, 1) and goes on without a gap: two at least, all
    written alike. An option goes up to the next label, the last one to the end of its line; what follows stays with the
    question.
    """
    for pattern in (_LINE, _WITHIN):
        if 0 < len(run := _last_run(list(pattern.finditer(text)))) <= MOST:
            end = text.find("\n", run[-1].end())
            stops = [*(one.start() for one in run[1:]), end if end >= 0 else len(text)]
            options = [" ".join(text[one.end() : stop].split()) for one, stop in zip(run, stops, strict=True)]
            parts = (text[: run[0].start()].rstrip(), text[stops[-1] :].strip())
            return Found("\n".join(part for part in parts if part), options, [one["label"] for one in run])
    return Found(text, [], [])


def split(text: str) -> tuple[str, list[str]]:
    """The question without its options, and the options in order; all of the text and [] where it has none."""
    return find(text)[:2]


def options(text: str) -> list[str]:
    """The options that stand in a problem's text, in order; [] where there are none."""
    return split(text)[1]


def _last_run(labels: list[re.Match[str]]) -> list[re.Match[str]]:
    """The labels from the last A, a or 1 that another one follows; others are none of that run."""
    nearest: dict[tuple[str, str, str], int] = {}
    following: list[int | None] = [None] * len(labels)
    for place, label in reversed(list(enumerate(labels))):
        how = (label["open"], label["close"])
        following[place] = nearest.get((*how, _next(label["label"])))
        nearest[*how, label["label"]] = place
        if label["label"] in ("A", "a", "1") and following[place] is not None:
            run: list[re.Match[str]] = []
            here: int | None = place
            while here is not None:
                run.append(labels[here])
                here = following[here]
            return run
    return []


def _next(label: str) -> str:
    return str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1)


def options_of(value: Any) -> tuple[list[Any], list[str]]:
    """Options and their labels, in any form that data has them; ([], []) where it holds something else."""
    if isinstance(value, str) and value.strip():
        value = split(value)[1] if (found := _list(value)) is None else found
        if value == []:
            return [], []
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list):
        labels = [str(one) for one in value.get("label") or []]
        return texts, labels if len(labels) == len(texts) else []
    if isinstance(value, dict):
        names = "".join(str(name).upper() for name in value)
        return ([*value.values()], [*names]) if len(names) >= 2 and letters(MOST).startswith(names) else ([], [])
    if not isinstance(value, list):
        return [], []
    value = [one for one in value if one is not None]
    if value and all(isinstance(one, dict) and "text" in one for one in value):
        labels = [str(one["label"]) for one in value if one.get("label") is not None]
        return [one["text"] for one in value], labels if len(labels) == len(value) else []
    return (value, []) if all(isinstance(one, str | int | float) for one in value) else ([], [])


def _list(text: str) -> Any:
    """A list that a table's cell holds as JSON or Python writes it; None if it is none."""
    if text.lstrip()[:1] in ("[", "{"):
        for reader in (json.loads, ast.literal_eval):
            try:
                return reader(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return None


def letter_of(gold: Any, given: list[Any], options: list[str], labels: list[str]) -> str | None:
    """The letter of the right option, however the data names it."""
    names = letters(len(options))
    text = " ".join(str(gold).split())
    if text in (labels or names):
        return names[[*(labels or names)].index(text)]
    numbered = any(label.isdigit() for label in labels)  # then a number is a label or nothing
    if isinstance(gold, int | float) and not isinstance(gold, bool) and gold not in given:
        return names[int(gold)] if gold in range(len(names)) and not numbered else None  # counted from 0
    same = [place for place, one in enumerate(options) if " ".join(one.split()).casefold() == text.casefold()]
    if same:
        return names[same[0]]
    said = _LETTER.fullmatch(text)  # "(C)", "C." or "C) the option's text"
    if said and (letter := said[1].upper()) in names:
        rest = (said[2] or "").casefold()
        return letter if rest in ("", options[names.index(letter)].casefold()) else None
    return names[int(text)] if text in map(str, range(len(names))) and not numbered else None
