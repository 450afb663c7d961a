"""Answers: group those that are equivalent, take a vote.

Builds on extraction and equivalence. The vote is the label that a memory learns from (method.md,
after TTRL, arXiv 2504.16084), so it says how sure it is and why; nothing here reads a gold answer but ``correct``,
which only the scorer calls.

    >>> vote(["so \\\\boxed{12}", "Answer: 12", "the answer is 14", "no idea"]).why
    '2 of 4 say 12; next: 1 says 14; 1 gave no answer'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tacit.answers.equivalence import TIMEOUT, decide, equivalent, is_answer
from tacit.answers.extraction import extract
from tacit.answers.normalisation import normalise

__all__ = ["Vote", "correct", "equivalent", "extract", "group", "is_answer", "normalise", "vote", "vote_answers"]

_GROUP_LIMITS = 3
"""A grouping may spend this many times the limit of one pair."""


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
