"""Marking: the one module that reads a problem's gold answer, and the builder of the result rows that hold the marks.

Builds on answers (equivalence, votes) and problem. Everything that learns, recalls or routes works on
``Problem.blind()``; the runner hands the full problem to a ``Grader`` after the fact and writes down what comes back.
A test walks the syntax trees of all other modules and fails if one of them touches ``.gold``.

Every arm of a row has the same shape, so that a baseline is compared with nothing but its answers changed:
``answer`` is the vote over the samples, ``correct`` the share of samples that are right (the unbiased estimate of the
accuracy of one sampled answer), ``rights`` the marks sample by sample, ``greedy_answer`` and ``greedy_correct`` the
answer at temperature 0, ``majority_correct`` whether the vote is right. Marks are None for a problem without gold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tacit.answers.vote import vote_by
from tacit.errors import DataError
from tacit.problem import Problem
from tacit.tasks.base import Task, called
from tacit.tasks.maths import MATHS


def score(answers: Sequence[str | None], gold: str, task: Task = MATHS) -> list[bool]:
    """Whether each answer is right by the task; no answer is wrong."""
    return task.right(answers, gold)


def readable(problems: Sequence[Problem], task: Task, source: str) -> list[Problem]:
    """The problems, whose reference answers the task can read.

    Raises:
        DataError: it cannot read one; the message says which.
    """
    places = getattr(problems, "places", {})
    for problem in problems:
        if problem.gold is not None:
            try:
                if not problem.gold.strip():
                    raise DataError("it is empty; where there is none, leave the field out")
                task.on(problem.text).gold(problem.gold)
            except DataError as error:
                where = places.get(problem.id) or f"{source}: problem {problem.id}"
                raise DataError(
                    f"{where}: the task {called(task.name)} cannot read the reference answer: {error}; choose another "
                    "--task, say which field has it (--field answer=NAME), or mend the data"
                ) from None
    return list(problems)


class Grader:
    """Marks all that was answered on one problem and builds the parts of its result row."""

    def __init__(self, problem: Problem, task: Task = MATHS) -> None:
        self._problem, self._task = problem, task.on(problem.text)
        self._marks: dict[str, bool] = {}

    def rights(self, answers: Sequence[str | None]) -> list[bool] | None:
        """One mark per answer, or None if the problem has no gold answer. Marks are kept: arms share most answers."""
        gold = self._problem.gold
        if gold is None:
            return None
        new = sorted({answer for answer in answers if answer is not None and answer not in self._marks})
        self._marks.update(zip(new, score(new, self._task.gold(gold), self._task), strict=True))
        return [answer is not None and self._marks[answer] for answer in answers]

    def right(self, answer: str | None) -> bool | None:
        """The mark of one answer, or None if the problem has no gold answer."""
        marks = self.rights([answer])
        return None if marks is None else marks[0]

    def head(self, position: int) -> dict[str, Any]:
        """The fields that open a row: which problem it is, at which place of the stream (from 0)."""
        problem = self._problem
        return {
            "id": problem.id,
            "position": position,
            "family": problem.family,
            "problem": problem.text,
            "gold": problem.gold,
        }

    def arm(self, answers: Sequence[str | None], greedy: str | None, *, tokens: int, **extra: Any) -> dict[str, Any]:
        """One way of answering: ``answers`` sampled at T = 1, ``greedy`` the answer at T = 0.

        Args:
            answers: extracted answers, one per sample, None where none was found.
            greedy: extracted greedy answer.
            tokens: tokens generated for this arm.
            extra: further fields of the arm (``memory_id``, ``similarity``, ``route``, ...), stored as they are.
        """
        marks = self.rights(answers)
        answer = vote_by(self._task, answers).answer if answers else None
        return {
            "answer": answer,
            "correct": sum(marks) / len(marks) if marks else None,
            "greedy_answer": greedy,
            "greedy_correct": self.right(greedy),
            "answers": list(answers),
            "rights": marks,
            "majority_correct": self.right(answer),
            "tokens": tokens,
            **extra,
        }

    def majority(self, answers: Sequence[str | None], *, tokens: int) -> dict[str, Any]:
        """The equal-compute baseline: one vote over as many zero-shot rollouts as Tacit spent on the problem."""
        answer = vote_by(self._task, answers).answer if answers else None
        mark = self.right(answer)
        return {
            "answer": answer,
            "correct": None if mark is None else int(mark),
            "n": len(answers),
            "tokens": tokens,
        }


class Truths:
    """The oracle of methods that may use labels: upper bounds, labelled baselines and the sanity run.

    Raises:
        DataError: asked about a problem that has no gold answer, or that it was not given.
    """

    def __init__(self, problems: Sequence[Problem], task: Task = MATHS) -> None:
        self._tasks = {problem.id: task.on(problem.text) for problem in problems}
        self._gold = {problem.id: problem.gold for problem in problems}

    def truth(self, problem_id: str) -> str:
        """The right answer."""
        gold = self._gold.get(problem_id)
        if gold is None:
            raise DataError(f"problem {problem_id} has no gold answer, and a method asked for it; leave the method out")
        return self._tasks[problem_id].gold(gold)

    def right(self, problem_id: str, answers: Sequence[str | None]) -> list[bool]:
        """Whether each answer is right."""
        return score(answers, self.truth(problem_id), self._tasks[problem_id])
