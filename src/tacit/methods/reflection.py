"""ICL after self-reflection: the model looks at its own attempts again, and what it makes of them is shown later.

Builds on icl. After each window the model reviews its attempts on each problem, without labels: it is told which answer
most of them gave. It writes what went right, what went wrong, a lesson, and a clean solution. If that solution still
gives the majority answer, lesson and solution are kept in place of the raw trace; if not, the raw trace is.

A model can be asked this only in words that it has. Where its tokenizer loses words of the request (the testbed's model
knows 67 and reads nothing but problems and solutions) it reflects in the one form that it knows: some of its own
majority traces are worked examples of the same problem, and it solves that problem again, greedily. No lesson comes of
that, but a solution in the way that several attempts agree on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from tacit.engines.base import Rollout
from tacit.methods.experience import Reviewing, listed
from tacit.methods.icl import ICL, Example
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses

REQUEST = """Here is a problem and some of your own attempts at it. Most of your attempts gave the answer {answer}.

Problem: {problem}

{attempts}

Review these attempts. Then write, under these headings and in this order:
What went right: the steps that lead to that answer, in one or two sentences.
What went wrong: the mistakes of the attempts that differ, in one or two sentences.
Lesson: one piece of advice for other problems of this kind, without this one's numbers.
Solution: a clean solution of this problem, with the final answer at its end."""

_HEADING = r"^[\s*#>-]*{}[*\s]*:[*\s]*"
_LESSON = re.compile(f"(?ims){_HEADING.format('lesson')}(.+?)(?={_HEADING.format('solution')}|\\Z)")
_SOLUTION = re.compile(f"(?ims){_HEADING.format('solution')}(.+)\\Z")


@register("method", "icl-reflect")
class Reflected(Reviewing[Example], ICL):
    """The reworked traces of the ``k`` nearest problems as worked examples, the nearest last.

    Options:
        k: problems shown.
        attempts: that the model looks at again, at most.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"k": 1, "attempts": 3}
    asking: ClassVar[str] = REQUEST

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[Example | None, str]]:
        kept = super().keep(problems, responses)
        for place, rollout in self.reviews(problems, responses):
            task = responses[place].task
            text = reworked(rollout.text) if self.reads else rollout.text
            answer, majority = None if text is None else task.extract(text), responses[place].vote.answer
            if text is not None and answer is not None and majority is not None and task.same(answer, majority):
                kept[place] = (problems[place].text, text), "reworked, and its answer is still the majority's"
            else:
                kept[place] = kept[place][0], f"the raw trace, since the reworked one answers {answer or 'nothing'}"
        return kept

    def review(
        self, problem: Problem, responses: Responses, agreeing: list[Rollout], others: list[Rollout], count: int
    ) -> Tensor:
        if not self.reads:
            return self.world.backbone.encode(problem.text, [(problem.text, one.text) for one in agreeing[:count]])
        shown = listed([*agreeing[: count - len(others)], *others])
        asked = REQUEST.format(problem=problem.text, answer=responses.vote.answer, attempts=shown)
        return self.world.backbone.encode(asked)


def reworked(review: str) -> str | None:
    """What is shown of a review: its lesson, if there is one, and its solution; None without a solution."""
    solution, lesson = _SOLUTION.search(review), _LESSON.search(review)
    if solution is None:
        return None
    parts = [solution[1].strip()]
    if lesson is not None:
        parts.insert(0, f"Lesson: {lesson[1].strip()}")
    return "\n\n".join(parts)
