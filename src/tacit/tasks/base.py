"""The task protocol: what a kind of problem means for whoever asks, reads, votes and learns.

Builds on nothing. Nothing else in the house knows how a problem is asked, where an answer is found in a response,
or when two answers are the same. A task of your own is a subclass in one file:

    @register("task", "yes-no")
    class YesNo(Task):
        instruction = "Answer yes or no."

        def extract(self, text):
            words = re.findall("yes|no", text.lower())
            return words[-1] if words else None
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Task(ABC):
    """How problems of one kind are asked and read.

    Attributes:
        name: that it is registered under.
        instruction: appended to every problem ("" for none); part of the fingerprint.
        system: system message, for chat templates ("" for none); part of the fingerprint.
    """

    name: str = ""
    instruction: str = ""
    system: str = ""

    @abstractmethod
    def extract(self, text: str) -> str | None:
        """The final answer in a response; None where there is none."""

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same; by spelling, unless a task knows better."""
        return one == other

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Indices of answers that are the same, the largest group first; None is in no group.

        From the commonest spelling to the rarest, then alphabetically, each joins the first group all of whose
        spellings it is the same as, both ways, or founds one: the order of the answers changes nothing.
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
