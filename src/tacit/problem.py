"""A problem: what the model is asked.

Builds on nothing. ``Problem.gold`` exists for the scorer (``experiments.scoring``) and for nothing else: everything
that learns or answers is handed ``problem.blind()``, which has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

LONGEST = 100_000
"""Most characters of a problem."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: unique within its source, stable across runs.
        text: what the model is asked, without any template.
        gold: the reference answer, or None if unknown. Read by the scorer alone.
        family: kind of problem where the source knows it (reporting only, never used to learn or recall).
    """

    id: str
    text: str
    gold: str | None = field(default=None, repr=False)
    family: str | None = None

    def blind(self) -> Problem:
        """The same problem with neither gold answer nor family."""
        return replace(self, gold=None, family=None)
