"""Marking: the one module that reads a problem's gold answer, and the builder of the result rows that hold the marks.

Builds on the task and problem. Everything that learns, recalls or routes works on
``Problem.blind()``; the runner hands the full problem to a ``Grader`` after the fact and writes down what comes back.
A test walks the syntax trees of all other modules and fails if one of them touches ``.gold``.

Every arm of a row has the same shape. So a baseline is compared with nothing but its answers changed: ``answer`` is the
vote over the samples; ``correct`` the share of samples that are right (the unbiased estimate of the accuracy of one
sampled answer); ``rights`` the marks sample by sample; ``greedy_answer`` and ``greedy_correct`` the answer at
temperature 0; ``majority_correct`` whether the vote is right. Marks are None for a problem without gold.

No answer counts as wrong. So accuracies do not show that a task does not fit what a model writes: the commonest reason
why a run learns nothing; below, what share of the responses has no answer, and, where most have none, what helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tacit.errors import DataError
from tacit.problem import Problem
from tacit.seeds import derive
from tacit.tasks.base import Task, called
from tacit.tasks.maths import MATHS

if TYPE_CHECKING:
    from tacit.engines.base import Rollout
    from tacit.responses import Responses


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


def identity(problems: Sequence[Problem]) -> list[tuple[str, str, str | None]]:
    """By which the same problems, with the same reference answers, are known again."""
    return [(problem.id, problem.text, problem.gold) for problem in problems]


def number_of(problems: Sequence[Problem]) -> int:
    """``identity`` in 63 bits."""
    return derive(*map(ascii, identity(problems)))


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
        """One way of answering: ``answers`` sampled, ``greedy`` the answer at T = 0.

        Args:
            answers: extracted answers, one per sample, None where none was found.
            greedy: extracted greedy answer.
            tokens: tokens generated for this arm.
            extra: further fields of the arm (``memory_id``, ``similarity``, ``route``, ...), stored as they are.
        """
        marks = self.rights(answers)
        answer = self._task.vote(answers).answer if answers else None
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
        answer = self._task.vote(answers).answer if answers else None
        mark = self.right(answer)
        return {"answer": answer, "correct": None if mark is None else int(mark), "n": len(answers), "tokens": tokens}


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


MOST = 0.5
"""A larger share of responses without an answer is told."""

HELP = "another --task or --instruction, or, where responses are cut or run on, more --max-tokens or a --stop"
SHOWN = 100
"""Characters of a response that are shown, half of them from its end."""


def asked(row: Mapping[str, Any]) -> Sequence[str | None]:
    """The zero-shot answers in a row of a run, or a method's in one of a comparison; none where it was not asked, or
    failed."""
    if str(row.get("not_learned")).startswith("not asked") or row.get("failed"):
        return ()
    return row.get("zero_shot", row).get("answers") or ()


def counted(answers: Iterable[Sequence[str | None]]) -> dict[str, Any]:
    """``{responses, none, share}``: how many there are, how many have no answer, and their share (None of nothing)."""
    found = [answer is None for several in answers for answer in several]
    return {"responses": len(found), "none": sum(found), "share": sum(found) / len(found) if found else None}


def silent(responses: Iterable[Responses]) -> list[Rollout]:
    """The samples without an answer."""
    pairs = (pair for one in responses for pair in zip(one.samples, one.answers, strict=True))
    return [rollout for rollout, answer in pairs if answer is None]


def advice(rollouts: Sequence[Rollout]) -> str:
    """What helps against responses like these, none of which has an answer; with one of them, shortened."""
    cut = [rollout for rollout in rollouts if rollout.finish == "length"]
    mostly_cut = 2 * len(cut) > len(rollouts)
    text = " ".join((cut if mostly_cut else [one for one in rollouts if one.finish != "length"])[0].text.split())
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
    helps = "another --task or --instruction (tacit tasks lists tasks, tacit tasks try NAME shows what one finds)"
    if mostly_cut:
        helps = f"more --max-tokens, which cut most of them, a --stop where they run on, or {helps}"
    return f'for example "{text}"; try {helps}'


class Watch:
    """Counts the responses of a run, and tells once if most have no answer.

    Args:
        tell: gets the line, which holds what a model wrote: not every terminal should see it as it is.
        task: name of the task.
    """

    def __init__(self, tell: Callable[[str], None], task: str) -> None:
        self._tell, self._task = tell, task
        self._counts = [0, 0]
        self._told = False

    def rows(self, rows: Iterable[Mapping[str, Any]], responses: Iterable[Responses] = ()) -> None:
        """Count final rows; ``responses`` are what they were made of, where that is still known."""
        new = counted(map(asked, rows))
        self._counts = [self._counts[0] + new["none"], self._counts[1] + new["responses"]]
        none, every = self._counts
        examples = silent(responses)
        if examples and not self._told and none > MOST * every:
            self._told = True
            share = f"{none} of {every} responses so far ({100 * none / every:.1f} %)"
            self._tell(f"{share} have no answer that the task {self._task} can read, {advice(examples)}")
