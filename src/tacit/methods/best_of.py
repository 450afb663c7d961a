"""Best of n: what the verifier, or likelihood, makes of several zero-shot answers, without any memory.

Builds on the method protocol and verifiers. A verifier that knows right from wrong gains by itself; where a method that
routes by it gains no more, at equal numbers of answers, the verifier did it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tacit.engines.base import Rollout
from tacit.errors import ConfigError
from tacit.judges.likelihood import held
from tacit.methods.base import Method, Reply, World
from tacit.methods.majority import Majority
from tacit.methods.planning import Plan, Setting, Work
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses
from tacit.tasks.base import Task


@register("method", "best-of-8")
class BestOf(Method):
    """Of eight sampled answers the one that the verifier scores highest."""

    probed: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {"n": 8}

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.n = self.count("n")
        if world.verifier is None:
            raise ConfigError(f"{self.name} needs a verifier; give --reward-model, or leave the method out")

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        rollouts = setting.problems * int(setting.options["n"]) * setting.sampling.samples
        return Plan((Work("answer", rollouts, len(setting.windows)),), scored=rollouts if setting.verified else 0)

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        """As many replies as other methods sample, each the best of ``n`` samples of its own."""
        world, n, replies = self.world, self.n, []
        drawn = n * world.sampling.samples
        assert world.verifier is not None
        for problem, rollouts in zip(problems, world.rollouts(problems, [drawn] * len(problems)), strict=True):
            picked = []
            for start in range(0, drawn, n):
                part = rollouts[start : start + n]
                responses = Responses.of(part, part[0], world.task.on(problem.text))
                answers, candidates = responses.answers, responses.candidates()[:-1]
                scores = world.verifier.score(problem.text, candidates)
                best = max(range(n), key=lambda i: (candidates[i].answer is not None, scores[i], -i))
                picked.append(answers[best])
            replies.append(Reply(tuple(picked), picked[0]))
        return replies


@register("method", "best-of-2")
class BestOfTwo(BestOf):
    """Of two sampled answers the one that the verifier scores higher: as many as routing chooses from."""

    defaults: ClassVar[Mapping[str, Any]] = {"n": 2}


@register("method", "likeliest")
class Likeliest(Majority):
    """Of ``n`` samples the likeliest answer (default 16: as many as routing chooses from); see ``held``."""

    defaults: ClassVar[Mapping[str, Any]] = {"n": 16}

    def told(self, rollouts: Sequence[Rollout], task: Task) -> Reply:
        answer = held(Responses.of(rollouts, rollouts[0], task).candidates()[:-1], task)
        return Reply((answer,), answer)
