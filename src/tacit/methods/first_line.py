"""The best first words, forced upon the answer: what an opening is worth without any training. A control.

Builds on experience. The first tokens of a response decide much of what follows, and choosing among openings needs no
gradient (prefix clustering). Here the responses to the ``k`` nearest earlier problems choose. An opening scores the
share of the majority's responses that begin with it, less that of the others; it has to be common to two problems. A
response is made to go on from the best one. What a memory gains beyond that is not in how an answer begins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch

from tacit.engines.base import Request
from tacit.methods.experience import Found, FromExperience, attempts
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses

Heads = tuple[tuple[str, ...], ...]
"""The first words of some responses; a word keeps the space before it, and the end of its line."""

WORDS = 16
"""Most words of an opening."""

_WORD = re.compile(r"\s*\S+(?:[^\S\n]*\n)?")


class Openings(NamedTuple):
    """How the responses to one problem begin: those that gave the majority's answer, and the others."""

    agreeing: Heads
    others: Heads


@register("method", "best-first-line")
class FirstLine(FromExperience[Openings]):
    """Responses open with the words that tell the majority's responses to the ``k`` nearest problems from the others.

    Options:
        k: problems that choose.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"k": 3}

    def requests(self, problem: Problem, near: Sequence[Found[Openings]]) -> list[Request]:
        backbone, lead = self.world.backbone, best([one.item for one in near])
        if not lead:
            return []
        ids = torch.tensor(backbone.tokenizer(lead, add_special_tokens=False)["input_ids"], dtype=torch.int64)
        ids = torch.cat([backbone.encode(problem.text), ids])
        return self.world.responder.requests(problem, ids, self.name) if self.room(len(ids)) else []

    def heard(self, problem: Problem, near: Sequence[Found[Openings]], responses: Responses) -> Responses:
        """A response is read with the words that it was made to open with."""
        lead = best([one.item for one in near])
        *samples, greedy = (replace(one, text=lead + one.text) for one in (*responses.samples, responses.greedy))
        return Responses.of(samples, greedy, responses.task)

    def notes(self, near: Sequence[Found[Openings]]) -> dict[str, Any]:
        return {**super().notes(near), "opening": best([one.item for one in near])} if near else {}

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[Openings | None, str]]:
        kept = []
        for one in responses:
            agreeing, others = (tuple(head(rollout.text) for rollout in part) for part in attempts(one))
            kept.append((Openings(agreeing, others) if agreeing else None, ""))
        return kept


def head(text: str) -> tuple[str, ...]:
    """The words of a response that an opening may have: up to the first with a digit, and never the last one."""
    words = _WORD.findall(text.lstrip())[: WORDS + 1]
    numbers = (place for place, word in enumerate(words) if any(character.isdigit() for character in word))
    return tuple(words[: next(numbers, len(words) - 1)])


def best(problems: Sequence[Openings]) -> str:
    """The opening with the largest lead among those that are common to two problems; "" if none has one."""
    return "".join(telling(problems, common=2))


def telling(problems: Sequence[tuple[Heads, Heads]], common: int) -> tuple[str, ...]:
    """The opening that tells best, over the problems, how agreeing responses begin and others do not; () if none does.

    Of equally good ones the longest is taken, then the alphabetically first.

    Args:
        problems: heads of the agreeing responses, and of the others.
        common: to how many problems it has to be common.
    """
    begun = Counter(
        opening
        for agreeing, _ in problems
        for opening in {each[:length] for each in agreeing for length in range(1, len(each) + 1)}
    )
    candidates = sorted(opening for opening, count in begun.items() if count >= common)
    leads = {
        opening: sum(share(opening, agreeing) - share(opening, others) for agreeing, others in problems)
        for opening in candidates
    }
    chosen = max(candidates, key=lambda each: (round(leads[each], 9), len(each)), default=())
    return chosen if leads.get(chosen, 0) > 0 else ()


def share(opening: tuple[str, ...], heads: Heads) -> float:
    """The share of responses that begin with an opening; 0 of none."""
    return sum(each[: len(opening)] == opening for each in heads) / max(1, len(heads))
