"""ReasoningBank: strategies distilled as text from success and failure, found again, put into the prompt. Our port.

Builds on experience. After ReasoningBank (arXiv 2509.25140), whose code is for agents and has no mathematics, so this
is a port and no reproduction. As there: attempts are judged by the model itself (here by its majority answer, without
labels). Items of title, description and content are distilled from successes and failures side by side. They are kept
with their problem; those of the ``k`` nearest problems go into the prompt of a later one.

A model that can read the request distils and reads items in English. The testbed's model cannot: its 67 words allow
problems and solutions. The only words that tell a strategy are those that a solution opens with. There the item is *the
opening that tells successes from failures*: of all openings without digits in the majority's traces, the one whose
share there most exceeds that in others. It goes into the prompt in the form that this model reads: its problem, with
that opening for a solution, as an earlier turn.

A strategy in the prompt is advice, and advice need not be followed. ``reasoning-bank-obeyed`` is the upper bound: the
response itself is made to open with the strategy, as if the model always did as it is told. For the testbed that is
strong, since there the opening words *are* the skill.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tacit.engines.base import Request, Rollout
from tacit.methods.experience import Found, Reviewing, attempts, listed
from tacit.methods.first_line import telling
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses

ITEMS = 3
"""Most items distilled from one problem, as in ReasoningBank."""
REQUEST = """Here is a problem and your own attempts at it. Those that gave the most common answer count as successes,
the others as failures.

Problem: {problem}

Successes:
{successes}

Failures:
{failures}

Compare them, and write down what is worth remembering for other problems: what made the successes succeed, and what to
avoid in the failures. Write at most {items} items, none of them about this problem's own numbers, each in this form:
Title: a name of the strategy
Description: when it applies, in one sentence
Content: what to do or to avoid, in one to three sentences"""
ADVICE = """Strategies from your earlier work, which may or may not help here:

{items}

Problem: {problem}"""

_ITEM = re.compile(
    r"(?ims)^[\s*#>\d.-]*title[*\s]*:[*\s]*(?P<title>.+?)\s*"
    r"^[\s*#>-]*description[*\s]*:[*\s]*(?P<description>.+?)\s*"
    r"^[\s*#>-]*content[*\s]*:[*\s]*(?P<content>.+?)\s*(?=^[\s*#>\d.-]*(?:title|memory item)\b|\Z)"
)


@dataclass(frozen=True)
class Item:
    """A strategy; title and description are empty where it is the opening of solutions."""

    title: str
    description: str
    content: str

    def __str__(self) -> str:
        return ". ".join(part.rstrip(".") for part in (self.title, self.description) if part) + f". {self.content}"


@dataclass(frozen=True)
class Distilled:
    """What a problem left: at least one item."""

    problem: str
    items: tuple[Item, ...]


@register("method", "reasoning-bank")
class ReasoningBank(Reviewing[Distilled]):
    """The strategies of the ``k`` nearest problems in the prompt, the nearest last.

    Options:
        k: problems whose strategies are shown. ReasoningBank shows one; on the testbed three gave more.
        attempts: that the model compares, at most, successes and failures in equal parts (models that can read the
            request; the rule for others compares all).
    """

    defaults: ClassVar[Mapping[str, Any]] = {"k": 3, "attempts": 4}
    asking: ClassVar[str] = REQUEST + ADVICE

    def requests(self, problem: Problem, near: Sequence[Found[Distilled]]) -> list[Request]:
        backbone = self.world.backbone
        if self.reads:
            items = "\n".join(f"- {item}" for one in reversed(near) for item in one.item.items)
            ids = backbone.encode(ADVICE.format(items=items, problem=problem.text))
        else:
            ids = backbone.encode(
                problem.text, [(one.item.problem, one.item.items[0].content) for one in reversed(near)]
            )
        return self.world.responder.requests(problem, ids, self.name) if self.room(len(ids)) else []

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[Distilled | None, str]]:
        items = [() if self.reads else opening(one) for one in responses]
        for place, rollout in self.reviews(problems, responses) if self.reads else ():
            items[place] = parse(rollout.text)
        return [
            (Distilled(problem.text, found), " | ".join(map(str, found))) if found else (None, "nothing to distil")
            for problem, found in zip(problems, items, strict=True)
        ]

    def review(
        self, problem: Problem, responses: Responses, agreeing: list[Rollout], others: list[Rollout], count: int
    ) -> torch.Tensor:
        successes, failures = listed(agreeing[: count - len(others)]), listed(others) or "none"
        asked = REQUEST.format(problem=problem.text, successes=successes, failures=failures, items=ITEMS)
        return self.world.backbone.encode(asked)


@register("method", "reasoning-bank-obeyed")
class Obeyed(ReasoningBank):
    """Upper bound: responses open with the first strategy of the nearest problem, or with that of most of the ``k``
    nearest."""

    def requests(self, problem: Problem, near: Sequence[Found[Distilled]]) -> list[Request]:
        backbone = self.world.backbone
        # Of equally common ones the nearest problem's: a Counter keeps the order of arrival.
        [(content, _)] = Counter(one.item.items[0].content for one in near).most_common(1)
        lead = backbone.tokenizer(content + "\n", add_special_tokens=False)["input_ids"]
        ids = torch.cat([backbone.encode(problem.text), torch.tensor(lead, dtype=torch.int64)])
        return self.world.responder.requests(problem, ids, self.name) if self.room(len(ids)) else []


def parse(review: str) -> tuple[Item, ...]:
    """The items of a review, in order, ``ITEMS`` at most."""
    found = [
        Item(*(" ".join(part.strip("* \n").split()) for part in match.groups())) for match in _ITEM.finditer(review)
    ]
    return tuple(found[:ITEMS])


def opening(responses: Responses) -> tuple[Item, ...]:
    """The opening that tells the majority's traces from the others, as an item; () if none is commoner among them.

    An opening is one or more first words of a trace, up to the first with a digit. Of equally telling ones the longest
    is taken, then the alphabetically first.
    """
    successes, failures = ([_head(one.text) for one in part] for part in attempts(responses))
    best = telling([(tuple(successes), tuple(failures))], common=1)
    return (Item("", "", " ".join(best)),) if best else ()


def _head(text: str) -> tuple[str, ...]:
    words = text.split()
    numbers = (place for place, word in enumerate(words) if any(character.isdigit() for character in word))
    return tuple(words[: next(numbers, len(words))])
