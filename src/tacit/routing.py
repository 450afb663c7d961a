"""Routing: the answer without memory, the answer with it, and which of the two is returned.

Builds on the task, rollouts and verifiers. They agree: nothing to decide. They differ: the verifier scores both
responses and the better one wins; on a tie the frozen model's own answer does. This protects against noisy and harmful
memories (method.md, "Response routing"), and its decisions are the helped and hurt counts of a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tacit.engines.base import Rollout
from tacit.judges.verifiers import Candidate, Verifier
from tacit.tasks.base import Task
from tacit.tasks.maths import MATHS

Pair = tuple[Candidate, Candidate]  # a response without memory, and one with it
Said = tuple[Rollout, str | None]  # a response and the answer in it


@dataclass(frozen=True)
class Route:
    """A decision.

    Attributes:
        name: "no_memory", "agree", "memory" or "zero_shot": what was returned, and in the second case both.
        why: who decided and with what numbers, in one sentence.
        telling: whether it says anything of the memory.
    """

    name: str
    why: str
    telling: bool = True

    @property
    def takes_memory(self) -> bool:
        """Whether the memory's response is the one returned."""
        return self.name in ("agree", "memory")

    @property
    def counts(self) -> dict[str, int]:
        """What it says of the memory: it agreed, helped (its answer was preferred) or hurt."""
        names = {"agreed": "agree", "helped": "memory", "hurt": "zero_shot"}
        return {count: int(self.telling and self.name == name) for count, name in names.items()}


NO_MEMORY = Route("no_memory", "no memory is similar enough")


def route(problem: str, pairs: Sequence[Pair], verifier: Verifier | None, task: Task = MATHS) -> list[Route]:
    """Decide each (zero-shot, memory) pair of responses to one problem.

    Args:
        problem: its text.
        pairs: (response without memory, response with it).
        verifier: None trusts the memory whenever it gives an answer.
        task: says when two answers are the same.
    """
    routes: list[Route | None] = [_obvious(zero, memory, verifier, task) for zero, memory in pairs]
    open_pairs = [pair for pair, decided in zip(pairs, routes, strict=True) if decided is None]
    if open_pairs:
        assert verifier is not None
        distinct = list({id(c): c for pair in open_pairs for c in pair}.values())
        scores = dict(zip(map(id, distinct), verifier.score(problem, distinct), strict=True))
        judged = iter([_judged(verifier.name, scores[id(zero)], scores[id(memory)]) for zero, memory in open_pairs])
        routes = [decided or next(judged) for decided in routes]
    return [decided for decided in routes if decided is not None]


def by_votes(arms: Sequence[Sequence[Said]], routed: Route, task: Task = MATHS) -> tuple[Route, Rollout]:
    """The response to return where many were drawn to compare two: the routed one, else another, that gives the answer
    of all votes, if they are not tied. It is right more often (docs/log/2026-11-30-both-sides-vote.md).

    Args:
        arms: a response without memory; one with it; samples without; samples with it.
        routed: how the first two were decided.
        task: on the problem.
    """
    zero, memory, plain, helped = arms
    first, second = (memory, zero) if routed.takes_memory else (zero, memory)
    vote = task.vote([answer for _, answer in (*plain, *helped)])
    if vote.answer is None or vote.tied:
        return routed, first[0][0]
    for arm in (first, second):
        [(chosen, answer)] = arm
        if task.giving([answer], vote.answer)[0]:
            with_memory = arm is memory
            break
    else:
        agree = [(one, n >= len(plain)) for n, (one, _) in enumerate((*plain, *helped)) if vote.agrees[n]]
        with_memory = sum(side for _, side in agree) > len(agree) / 2
        chosen = next(one for one, side in agree if side is with_memory)
    if chosen is first[0][0]:
        return routed, chosen
    return Route("memory" if with_memory else "zero_shot", f"samples without memory and with it: {vote.why}"), chosen


def _obvious(zero: Candidate, memory: Candidate, verifier: Verifier | None, task: Task) -> Route | None:
    if memory.answer is None:
        return Route("zero_shot", "the response with memory gives no answer")
    if zero.answer is None:
        return Route("memory", "the response without memory gives no answer")
    if task.same(zero.answer, memory.answer):
        return Route("agree", "both give the same answer")
    if memory.doubt:
        return Route("zero_shot", memory.doubt, telling=False)
    return Route("memory", "routing is off: the memory's answer is taken") if verifier is None else None


def _judged(name: str, zero: float, memory: float) -> Route:
    why = f"{name}: {memory:.3f} with memory, {zero:.3f} without"
    return Route("memory" if memory > zero else "zero_shot", why)
