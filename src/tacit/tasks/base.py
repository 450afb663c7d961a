"""The task protocol: what a kind of problem means for whoever asks, reads, votes and learns.

Builds on the registry, which has tasks by name. Nothing else in the house knows how a problem is asked or where an
answer is found in a response; when two answers are the same; or how a reference answer is read. A task of your own is a
subclass in one file:

    @register("task", "yes-no")
    class YesNo(Task):
        instruction = "Answer yes or no."

        def extract(self, text):
            words = re.findall("yes|no", text.lower())
            return words[-1] if words else None
"""

from __future__ import annotations

import inspect
import json
import textwrap
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tacit import registry
from tacit.errors import ConfigError


@dataclass(frozen=True)
class Vote:
    """What a set of responses says. It is the label that a memory learns from (method.md, after TTRL, arXiv
    2504.16084), so it says how sure it is and why; no gold answer is read for it.

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


class Task(ABC):
    """How problems of one kind are asked and read.

    Attributes:
        name: that it is registered under, with what it was made from after a colon.
        instruction: appended to every problem ("" for none); part of the fingerprint.
        system: system message, for chat templates ("" for none); part of the fingerprint.
        stop: strings that end a response; neither they nor what follows is part of it.
        examples: worked (problem, solution) pairs, shown before every problem; part of the fingerprint.
    """

    name: str = ""
    instruction: str = ""
    system: str = ""
    stop: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()

    def on(self, problem: str) -> Task:
        """The task as it reads responses to one problem, given by its text: itself, unless reading needs the text."""
        return self

    def shown(self, problem: str, number: int) -> str:
        """The text of a problem as response ``number`` to it is asked for: always the same, unless a task varies it."""
        return problem

    def permit(self, code: bool) -> None:  # noqa: B027 - most tasks run nothing
        """Let this task be chosen, whether or not the operator allows programs that a model writes to run.

        Raises:
            ConfigError: it needs that, or something else that is not there.
        """

    @abstractmethod
    def extract(self, text: str) -> str | None:
        """The final answer in a response; None where there is none."""

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same; by spelling, unless a task knows better."""
        return one == other

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Indices of answers that are the same, the largest group first; None is in no group.

        From the commonest spelling to the rarest (then alphabetically), each joins the first group whose spellings all
        equal it, or founds one: the order of the answers changes nothing.
        """
        where: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                where.setdefault(answer, []).append(index)
        groups: list[list[str]] = []
        for form in sorted(where, key=lambda form: (-len(where[form]), len(form), form)):
            home = next((g for g in groups if all(self.same(form, o) and self.same(o, form) for o in g)), None)
            if home is None:
                groups.append([form])
            else:
                home.append(form)
        indices = [sorted(index for form in members for index in where[form]) for members in groups]
        return sorted(indices, key=len, reverse=True)

    def vote(self, answers: Sequence[str | None]) -> Vote:
        """The majority among answers that ``extract`` found, one per response."""
        total, groups = len(answers), self.group(answers)
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

    def ranked(self, answers: Sequence[str | None], weights: Sequence[float]) -> list[tuple[float, list[int]]]:
        """Weight of each distinct answer, and the places of those who give it: the heaviest first; of equal ones the
        larger, then the earlier group."""
        groups = [(sum(weights[i] for i in one), one) for one in self.group(answers)]
        return sorted(groups, key=lambda group: (-group[0], -len(group[1]), group[1][0]))

    def giving(self, answers: Sequence[str | None], label: str) -> list[bool]:
        """Per answer, whether it is the same as a label; each spelling is compared once."""
        marks = {answer: self.same(answer, label) for answer in dict.fromkeys(answers) if answer is not None}
        return [answer is not None and marks[answer] for answer in answers]

    def gold(self, written: str) -> str:
        """A reference answer as data write it, in the form that answers are compared in. For the scorer alone.

        Raises:
            DataError: it cannot be read as an answer of this task.
        """
        return written

    def right(self, answers: Sequence[str | None], gold: str) -> list[bool]:
        """Per answer, whether it is the same as a reference answer. For the scorer alone."""
        return self.giving(answers, gold)


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


def task_named(name: str, *, code: bool = False) -> Task:
    """The task of that name; ``code`` says whether the operator allows it to run programs that a model writes.

    Raises:
        ConfigError: there is none, it cannot be made from what follows the name, or it may not do what it does.
    """
    kind, colon, given = name.partition(":")
    part = registry.get("task", kind)
    wants = list(inspect.signature(part).parameters.values()) if isinstance(part, type) else []
    if colon and not wants:
        raise ConfigError(f"the task {kind} takes nothing after its name, and {given!r} is given")
    if not colon and any(one.default is one.empty for one in wants):
        raise ConfigError(f"the task {kind} needs more; give {kind}:{wants[0].name.upper()}")
    task: Task = part if not isinstance(part, type) else part(given) if colon else part()
    if colon:
        task.name = name
    task.permit(code)
    return task


def called(name: str) -> str:
    """A task's name as people read it: of a TOML file, which is kept as what it says, no more than its instruction."""
    kind, _, given = name.partition(":")
    if kind != "toml" or not given.startswith("{"):
        return name
    said = textwrap.shorten(str(json.loads(given).get("instruction", "")), 50, placeholder="...")
    return f"FILE.toml ({said!r})" if said else "FILE.toml"
