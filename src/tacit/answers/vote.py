"""Answers: find one in a response, group those that are equivalent, take a vote.

Builds on equivalence, normalisation and the pool. The vote is the label that a memory learns from (method.md,
after TTRL, arXiv 2504.16084), so it says how sure it is and why; nothing here reads a gold answer but ``correct``,
which only the scorer calls.

    >>> vote(["so \\\\boxed{12}", "Answer: 12", "the answer is 14", "no idea"]).why
    '2 of 4 say 12; next: 1 says 14; 1 gave no answer'
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from tacit.answers import pool as answer_pool
from tacit.answers.equivalence import TIMEOUT, decide, equivalent, is_answer
from tacit.answers.normalisation import normalise
from tacit.errors import ConfigError

__all__ = ["Vote", "correct", "equivalent", "extract", "group", "is_answer", "normalise", "vote", "vote_answers"]

# A double backslash is a line break, unless a box follows: some models escape twice.
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)[ \t\n]{0,8}\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]")
_CUE = re.compile(
    r"(?:(?P<is>answer(?:[*_ ]{0,3} is|s are)\b(?! not\b))|answer[*_ ]{0,3}[:=]|####)[*_]{0,3}[ \t]{0,8}:?",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:(?:therefore|thus|then|simply|just|hence|equal to|given by)\b|[:,= \t]|\*\*|__){1,8}", re.IGNORECASE
)
# Where the answer of a running sentence ends: a full stop that is no decimal point, or a clause.
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)|;|,? (?:because|since|so|which|as|where)\b|, (?=[a-z]{3})")
_MATHS = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_PATTERN_LIMIT = 1.0
"""CPU seconds for a task's pattern on one response."""
_PATTERN_TAIL = 20_000
"""A task's pattern sees this many last characters of a response."""
_LINE_LIMIT = 10_000
_CUES = 50
"""So many last cues are looked at for one that something follows."""
_GROUP_LIMITS = 3
"""A grouping may spend this many times the limit of one pair."""


def extract(text: str, pattern: str | None = None) -> str | None:
    r"""The final answer in a response, or None. The first of these that is there counts:

    1. the last balanced ``\boxed{...}`` or ``\fbox{...}`` that is not empty (one cut by the token limit is none);
    2. the last match of ``pattern``, a regular expression: its group 1, or all of it if it has no group. It runs in the
       answer worker, so that one that backtracks for ever costs a second;
    3. after the last "Answer:", "the answer is" or "####": the rest of the line, or of the sentence.

    The last number of a text is never taken for an answer, and digits that stand apart ("9 2") are not joined.
    """
    found = _boxed(text)
    if found is None and pattern is not None:
        found = _by_pattern(text, pattern)
    return _phrase(text) if found is None else found


def _boxed(text: str) -> str | None:
    if "boxed" not in text and "fbox" not in text:
        return None
    stack: list[int] = []  # where the content of each open brace begins, -1 if the brace is no box
    last = None
    for match in _BOX_OR_BRACE.finditer(text):
        token = match[0]
        if token == "{":
            stack.append(-1)
        elif token == "}":
            start = stack.pop() if stack else -1
            if start >= 0 and not text[start : match.start()].isspace() and start < match.start():
                last = start, match.start()
        elif token[-1] == "{" and len(token) > 2:
            stack.append(match.end())
    return text[last[0] : last[1]].strip() if last else None


@lru_cache(maxsize=64)
def _checked(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"The answer pattern {pattern!r} is not a regular expression: {error}.") from error
    return pattern


def _by_pattern(text: str, pattern: str) -> str | None:
    reply = answer_pool.search(_checked(pattern), text[-_PATTERN_TAIL:], _PATTERN_LIMIT)
    return reply.value.strip() if isinstance(reply.value, str) else None


def _phrase(text: str) -> str | None:
    """What follows the last cue that anything follows."""
    for match in reversed(deque(_CUE.finditer(text), maxlen=_CUES)):
        line = text[match.end() : match.end() + _LINE_LIMIT].lstrip(" \t*_\n").split("\n", 1)[0]
        filler = _FILLER.match(line)
        line = line[filler.end() :] if filler else line
        answer = _tidy(_sentence(line) if match["is"] else line)
        if answer and "\\boxed{" not in answer and "\\fbox{" not in answer:  # a box that gets here was cut or empty
            return answer
    return None


def _sentence(line: str) -> str:
    maths = _MATHS.match(line)
    if maths is not None:
        return maths[0]
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def _tidy(answer: str) -> str:
    """Without white space, emphasis, a final full stop and dollar signs around it."""
    answer = answer.strip(" \t\r*`_").rstrip(".").strip(" \t\r*`_")
    maths = _MATHS.fullmatch(answer)
    return next(part for part in maths.groups() if part).strip() if maths else answer


# ---------------------------------------------------------------- groups, votes


def group(answers: Sequence[str | None], timeout: float = TIMEOUT) -> list[list[int]]:
    """Indices of equivalent answers, largest group first; what is no answer is in no group.

    Answers with the same normalised string are one form. Equivalence of forms is not transitive, so forms are merged
    by a rule that does not depend on the order of the answers: from the commonest form to the rarest (then the shorter,
    then the alphabetically first), each joins the first group *all* of whose forms it is equivalent to, or founds one.
    Groups of equal size are sorted by their founding form in the same way.

    ``timeout`` bounds the worker's CPU seconds for one pair, three times as much bounds the whole call; what is left
    undecided stays apart.
    """
    where: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None and is_answer(answer):
            where.setdefault(normalise(answer), []).append(index)
    left = _GROUP_LIMITS * timeout
    groups: list[list[str]] = []
    for form in sorted(where, key=lambda form: (-len(where[form]), len(form), form)):
        for members in groups:
            same = True
            for member in members:
                same, seconds = decide(form, member, min(timeout, left))
                left -= seconds
                if not same:
                    break
            if same:
                members.append(form)
                break
        else:
            groups.append([form])
    indices = [sorted(index for form in members for index in where[form]) for members in groups]
    order = sorted(range(len(groups)), key=lambda g: (-len(indices[g]), len(groups[g][0]), groups[g][0]))
    return [indices[g] for g in order]


@dataclass(frozen=True)
class Vote:
    """What a set of responses says.

    Attributes:
        answer: the winner as most of its voters wrote it, or None if nobody gave an answer. Among groups of equal size
            the one with the shorter, then alphabetically first form wins; ``tied`` says so, and such a vote should
            decide nothing.
        share: votes for the winner / number of responses, those without an answer included.
        margin: (votes for the winner - votes for the runner-up) / number of responses; 0 if tied. "No answer" is never
            the runner-up.
        votes: votes for the winner.
        lead: votes for the winner minus votes for the runner-up.
        agrees: per response, whether it is in the winning group.
        answers: per response, the answer found in it.
        why: the count in words.
        tied: whether another answer has as many votes.
    """

    answer: str | None
    share: float
    margin: float
    votes: int
    lead: int
    agrees: tuple[bool, ...]
    answers: tuple[str | None, ...]
    why: str
    tied: bool


def vote(responses: Sequence[str], pattern: str | None = None, timeout: float = TIMEOUT) -> Vote:
    """Extract an answer from each response and take the majority."""
    return vote_answers([extract(response, pattern) for response in responses], timeout)


def vote_answers(
    answers: Sequence[str | None], timeout: float = TIMEOUT, *, groups: list[list[int]] | None = None
) -> Vote:
    """The majority among answers that are already extracted; ``groups`` are those that are the same, where a task has
    said it."""
    total = len(answers)
    groups = group(answers, timeout) if groups is None else groups
    if not groups:
        why = f"none of {total} gave an answer" if total else "no responses"
        return Vote(None, 0.0, 0.0, 0, 0, (False,) * total, tuple(answers), why, False)
    names = [_name([str(answers[index]) for index in indices]) for indices in groups[:2]]
    votes = len(groups[0])
    second = len(groups[1]) if len(groups) > 1 else 0
    winners = set(groups[0])
    return Vote(
        answer=names[0],
        share=votes / total,
        margin=(votes - second) / total,
        votes=votes,
        lead=votes - second,
        agrees=tuple(index in winners for index in range(total)),
        answers=tuple(answers),
        why=_why(names, votes, second, total, total - sum(map(len, groups))),
        tied=votes == second,
    )


class Groups(Protocol):
    """What says which answers are the same: a task (tasks.base)."""

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Indices of answers that are the same, the largest group first."""
        ...


def vote_by(task: Groups, answers: Sequence[str | None]) -> Vote:
    """The majority among answers, where the task says which are the same."""
    return vote_answers(answers, groups=task.group(answers))


def _name(written: list[str]) -> str:
    """The commonest way of writing an answer, then the shortest, then the alphabetically first."""
    counts = Counter(written)
    return min(counts, key=lambda answer: (-counts[answer], len(answer), answer))


def _why(names: list[str], votes: int, second: int, total: int, silent: int) -> str:
    short = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    parts = [f"{votes} of {total} {_say(votes)} {short[0]}"]
    if second == votes:
        parts[0] = f"a tie: {parts[0]} and {second} {_say(second)} {short[1]}"
    elif second:
        parts.append(f"next: {second} {_say(second)} {short[1]}")
    if silent:
        parts.append(f"{silent} gave no answer")
    return "; ".join(parts)


def _say(count: int) -> str:
    return "says" if count == 1 else "say"


def correct(answers: Sequence[str | None], gold: str, timeout: float = TIMEOUT) -> list[bool]:
    """Per answer, whether it is equivalent to the reference. For the scorer alone."""
    marks: dict[str, bool] = {}
    for answer in answers:
        if answer is not None and answer not in marks:
            marks[answer] = equivalent(answer, gold, timeout)
    return [answer is not None and marks[answer] for answer in answers]
