"""A soft prompt fitted to the problem's own text, and to nothing else: what a memory gains by form alone.

Builds on gradients and the method protocol. SLOT (Sample-specific Language Model Optimization at Test-time, arXiv
2505.12392) fits one vector to the likelihood of a prompt before it is answered. Here what is fitted has the form of a
memory: as many rows, the same start and the same rate. There are no rollouts, no labels and no rewards. So nothing of
what it gains comes from what a vote or a verifier knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tacit.engines.base import Rollout
from tacit.gradients import Group, cap, descend, prompt_gradients
from tacit.methods.base import Lesson, Method, Reply
from tacit.methods.planning import Plan, Setting, Work, answering
from tacit.model.prompts import Start
from tacit.problem import Problem
from tacit.registry import register
from tacit.seeds import generator


@register("method", "slot")
class Slot(Method):
    """Fits a soft prompt to each problem's text, answers behind it, forgets.

    Options:
        steps: gradient steps per problem.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"steps": 5}
    probed: ClassVar[bool] = False

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        steps = setting.problems * int(setting.options["steps"])
        return Plan((answering(setting), Work("answer", 0, 0, trained=steps, steps=steps)), "memory")

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        replies = []
        for problem in problems:
            prompt = self._fitted(problem).numpy()
            [responses] = self.world.responder.generate(self.world.requests([problem], prompt), [problem])
            replies.append(Reply(responses.answers, responses.greedy_answer))
        return replies

    def _fitted(self, problem: Problem) -> Tensor:
        world, backbone, config = self.world, self.world.backbone, self.world.learning
        start = Start(backbone, config.tokens, generator(world.seed, problem.id, "init"))
        prompt = backbone.carrier.start(config.init, start).to(backbone.device).requires_grad_(True)
        self.trainable = prompt.numel()
        optimizer = torch.optim.Adam([prompt], lr=config.lr)
        ids = backbone.encode(problem.text)
        rest = tuple(ids[1:].tolist())
        text = Group(ids[:1], prompt, [Rollout(rest, (0.0,) * len(rest), "", "stop")], [1.0])
        for _ in range(self.count("steps")):
            prompt.grad = prompt_gradients(backbone, [text], 1.0, row_tokens=config.row_tokens)[id(prompt)]
            descend(optimizer, config.clip)
            cap(prompt, config.norm_cap * backbone.carrier.norm)
        return prompt.detach().cpu()

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Lesson]:
        """Learns nothing; counts what answering took."""
        self.gradient_steps += self.count("steps") * len(problems)
        return [Lesson(None, False, "") for _ in problems]
