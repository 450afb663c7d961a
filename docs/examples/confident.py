"""An example of a method of one's own, whole: of the sampled answers it gives the one that the model was surest of.

tacit compare --plugin docs/examples/confident.py --methods zero-shot,majority,confident --out runs/mine
"""

from collections.abc import Sequence
from typing import ClassVar

from tacit import Problem, register
from tacit.methods.base import Method, Reply


@register("method", "confident")
class Confident(Method):
    """The sampled answer with the highest mean log-probability per token."""

    defaults: ClassVar = {"least": -1e9}  # an option; a TOML file can set it under [options.confident]

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        world = self.world  # the frozen model, the engine, seeds and settings: the same for every method
        requests = [
            request
            for problem in problems
            for request in world.responder.requests(problem, world.backbone.encode(problem.text), "zero-shot")
        ]
        replies = []
        for responses in world.responder.generate(requests, problems):
            sure = [sum(rollout.logprobs) / len(rollout.logprobs) for rollout in responses.samples]
            best = max(range(len(sure)), key=sure.__getitem__)
            answer = responses.answers[best] if sure[best] >= self.options["least"] else None
            replies.append(Reply((answer,), answer, notes={"confidence": sure[best]}))
        return replies

    # A method that learns also has learn(problems, replies), called after each window; see src/tacit/methods/elm.py.
