"""ICL over raw traces: the nearest earlier problems and their own solutions, shown as worked examples.

Builds on experience. The baseline that the paper's soft prompts are compared with: same store of experience, same
retrieval, but the experience stays text. Every earlier problem with an answer has a trace, the first sampled response
that gave the majority answer; there is no gate and no floor, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.engines.base import Request
from tacit.judges.verifiers import VoteShare, paired
from tacit.methods.experience import Found, FromExperience
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses
from tacit.routing import route

Example = tuple[str, str]
"""A problem and a solution of it."""


@register("method", "icl")
class ICL(FromExperience[Example]):
    """The traces of the ``k`` nearest problems as worked examples, the nearest last."""

    def requests(self, problem: Problem, near: Sequence[Found[Example]]) -> list[Request]:
        ids = self.world.backbone.encode(problem.text, examples=[one.item for one in reversed(near)])
        drawn = self.name.removesuffix("-routed")  # the same answers are drawn, whatever is made of them
        return self.world.responder.requests(problem, ids, drawn) if self.room(len(ids)) else []

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[Example | None, str]]:
        return [
            (None if one.trace is None else (problem.text, one.trace.text), "")
            for problem, one in zip(problems, responses, strict=True)
        ]


@register("method", "icl-routed")
class RoutedICL(ICL):
    """Control: ICL with the router of ``elm-vote``, the answer that is more common among its own samples."""

    def given(self, problem: Problem, plain: Responses, helped: Responses) -> tuple[tuple[str | None, ...], str | None]:
        pairs = paired(plain.candidates(), helped.candidates(), VoteShare(), plain.task)
        routes = route(problem.text, pairs, VoteShare(), plain.task)
        *answers, greedy = (
            (other if decided.takes_memory else own).answer for decided, (own, other) in zip(routes, pairs, strict=True)
        )
        return tuple(answers), greedy
