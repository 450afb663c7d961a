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

import numpy as np
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

    def ask(
        self, problems: Sequence[Problem], keys: np.ndarray, first: Sequence[Request] = ()
    ) -> tuple[list[Responses], list[tuple[Responses | None, dict[str, Any]]]]:
        """As its base does; a response is read with the words that it was made to open with."""
        plain, helped = super().ask(problems, keys, first)
        told = zip(problems, self.store.nearest(keys, self.k), helped, strict=True)
        return plain, [
            (None, {}) if given is None else self._opened(problem, near, given, notes)
            for problem, near, (given, notes) in told
        ]

    def _opened(
        self, problem: Problem, near: Sequence[Found[Openings]], given: Responses, notes: dict[str, Any]
    ) -> tuple[Responses, dict[str, Any]]:
        lead = best([one.item for one in near if one.source in notes.get("sources", [one.source])])
        *samples, greedy = (replace(one, text=lead + one.text) for one in (*given.samples, given.greedy))
        return Responses.of(samples, greedy, self.world.task.on(problem.text)), {**notes, "opening": lead}

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
    """The opening with the largest lead, in the mean over the problems; "" if none is common to two, or has a lead.

    Of equally good ones the longest is taken, then the alphabetically first.
    """
    begun = Counter(
        opening
        for one in problems
        for opening in {each[:length] for each in one.agreeing for length in range(1, len(each) + 1)}
    )
    candidates = sorted(opening for opening, count in begun.items() if count > 1)
    if not candidates:
        return ""
    leads = {
        opening: sum(share(opening, one.agreeing) - share(opening, one.others) for one in problems)
        for opening in candidates
    }
    chosen = max(candidates, key=lambda each: (round(leads[each], 9), len(each)))
    return "".join(chosen) if leads[chosen] > 0 else ""


def share(opening: tuple[str, ...], heads: Heads) -> float:
    """The share of responses that begin with an opening; 0 of none."""
    return sum(each[: len(opening)] == opening for each in heads) / max(1, len(heads))
