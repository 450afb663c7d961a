"""The task protocol: what a kind of problem means for whoever asks, reads, votes and learns.

Builds on the registry, which has tasks by name. Nothing else in the house knows how a problem is asked, where an answer
is found in a response, when two answers are the same, or how a reference answer is read. A task of your own is a
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
from collections.abc import Sequence

from tacit import registry
from tacit.errors import ConfigError


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


# -- by name ----------------------------------------------------------------------------------------------------------


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
