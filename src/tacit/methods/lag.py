"""LAG-style reuse of stored activations: what attention kept of a worked problem stands before the next one.

Builds on experience and the engine's ``past``. Our port of what the paper compares with as LAG ("reuse of stored KV
activations, no learning"). After a problem the key/value activations of its majority trace, per layer, are stored; a
new problem starts behind the nearest one's. Nothing is computed again, nothing is learned. What is stored is a choice:

- ``solution`` (default): the solution's tokens alone, as computed with their problem before them. They know the
  problem through attention, but the new problem does not see it;
- ``all``: problem and solution. At k = 1 this is ICL with its prefix precomputed: same answers, less compute;
- ``bare``: the solution computed by itself, as if no problem stood before it.

Positions: attention with rotary embeddings sees differences of positions only, so the problem is computed at the
positions -T .. -1 and the solution's activations come out as those of 0 .. P-1, whatever stood before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from tacit.engines.base import KeyValues, Request, Rollout
from tacit.errors import ModelError
from tacit.methods.base import World, register
from tacit.methods.experience import Found, FromExperience
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.responses import Responses


@register("lag")
class LAG(FromExperience[KeyValues]):
    """The nearest problem's activations before the new one."""

    defaults: ClassVar[Mapping[str, Any]] = {"stored": "solution"}

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.stored = self.choice("stored", "solution", "all", "bare")

    def requests(self, problem: Problem, near: Sequence[Found[KeyValues]]) -> list[Request]:
        ids, past = self.world.backbone.encode(problem.text), near[0].item
        if not self.room(len(past) + len(ids)):
            return []
        return [replace(request, past=past) for request in self.world.responder.requests(problem, ids, self.name)]

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[KeyValues | None, str]]:
        return [
            (None if one.trace is None else self._stored(problem, one.trace), "")
            for problem, one in zip(problems, responses, strict=True)
        ]

    def _stored(self, problem: Problem, solution: Rollout) -> KeyValues:
        backbone = self.world.backbone
        before = backbone.encode(problem.text) if self.stored != "bare" else torch.zeros(0, dtype=torch.int64)
        ids = torch.cat([before, torch.tensor(solution.token_ids)])
        return activations(backbone, ids, len(before) if self.stored == "solution" else 0)


@torch.no_grad()
def activations(backbone: Backbone, ids: Tensor, first: int = 0) -> KeyValues:
    """Keys and values of the tokens ``ids[first:]`` of ``ids`` [T], at positions 0, 1, ...

    Raises:
        ModelError: first > 0, and the model has no positions before 0 (they are learned, not rotary).
    """
    positions = torch.arange(len(ids), device=backbone.device) - first
    cache = DynamicCache()  # without the model's configuration, so that a sliding window forgets nothing
    try:
        backbone.model(
            input_ids=ids[None].to(backbone.device),
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    except IndexError:
        raise ModelError(f"{backbone.name} has learned positions; give lag the option stored = all or bare") from None
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return KeyValues(
        tuple(states[0, :, first:].clone() for layer in layers if (states := layer.keys) is not None),
        tuple(states[0, :, first:].clone() for layer in layers if (states := layer.values) is not None),
    )
