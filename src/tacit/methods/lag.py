"""LAG-style reuse of stored activations: what attention kept of a worked problem stands before the next one.

Builds on experience and, for generating behind activations, on backbone, cache and the engine's draws. Our port of what
the paper compares with as LAG ("reuse of stored KV activations, no learning"). After a problem the key/value
activations of its majority trace, per layer, are stored; a new problem starts behind the nearest one's. Nothing is
computed again, nothing is learned. What is stored is a choice:

- ``solution`` (default): the solution's tokens alone, as computed with their problem before them. They know the
  problem through attention, but the new problem does not see it;
- ``all``: problem and solution. At k = 1 this is ICL with its prefix precomputed: same answers, less compute;
- ``bare``: the solution computed by itself, as if no problem stood before it.

Positions: attention with rotary embeddings sees differences of positions only, so the problem is computed at the
positions -T .. -1 and the solution's activations come out as those of 0 .. P-1, whatever stood before.

No engine knows of activations: what is asked behind some is generated in this process, with every engine's random
numbers, and counted as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

from tacit.engines.base import METER, Engine, Request, Rollout, Session, draw, ended, length_of, uniforms
from tacit.errors import ModelError
from tacit.methods.base import World
from tacit.methods.experience import Found, FromExperience
from tacit.model.backbone import Backbone, prompt_embeddings
from tacit.model.cache import RaggedCache, round_up
from tacit.model.decoder import LEAST_ROWS
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses

ROWS, PREFILLED = 256, 16384
"""Most rollouts generated behind activations at once, and most prompt tokens (padding included) of a first pass; one
request may have more."""


@dataclass(frozen=True, eq=False)
class KeyValues:
    """What attention keeps of a text.

    Attributes:
        keys, values: per layer [heads, P, head_dim], as the model computes them for positions 0 .. P-1 (rotary keys
            are kept rotated).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __len__(self) -> int:
        """P, the positions that it fills."""
        return int(self.keys[0].shape[1])


@dataclass(frozen=True)
class Behind(Request):
    """A request whose prompt stands behind ``past``, its positions after those."""

    past: KeyValues = field(kw_only=True)


@register("method", "lag")
class LAG(FromExperience[KeyValues]):
    """The nearest problem's activations before the new one."""

    defaults: ClassVar[Mapping[str, Any]] = {"stored": "solution"}

    def __init__(self, world: World) -> None:
        super().__init__(replace(world, engine=PastEngine(world.engine, world.backbone)))
        self.stored = self.choice("stored", "solution", "all", "bare")

    def requests(self, problem: Problem, near: Sequence[Found[KeyValues]]) -> list[Request]:
        ids, past = self.world.backbone.encode(problem.text), near[0].item
        if not self.room(len(past) + len(ids)):
            return []
        return [Behind(**vars(one), past=past) for one in self.world.responder.requests(problem, ids, self.name)]

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


class PastEngine(Engine):
    """An engine that serves requests behind activations too, those with the model in this process.

    Args:
        engine: for every other request.
        backbone: its model.
    """

    def __init__(self, engine: Engine, backbone: Backbone) -> None:
        self._engine, self.backbone = engine, backbone

    @property
    def context(self) -> int:
        return self._engine.context

    @property
    def draws(self) -> str:
        return self._engine.draws

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        behind = [request for request in requests if isinstance(request, Behind)]
        plain = iter(self._engine.generate([request for request in requests if not isinstance(request, Behind)]))
        rows = max((one.n for one in behind), default=1)
        length = max((length_of(self.backbone, one) for one in behind), default=1)
        step = max(1, min(ROWS // rows, PREFILLED // length))
        parts = (behind[at : at + step] for at in range(0, len(behind), step))
        served = (group for part in parts for group in generated(self.backbone, part))
        return [next(served) if isinstance(request, Behind) else next(plain) for request in requests]

    def session(self) -> Session:
        """The engine's own: for requests that stand behind nothing."""
        return self._engine.session()

    def close(self) -> None:
        """Nothing to do: the engine is its owner's."""


@dataclass(eq=False)
class _Row:
    """A rollout: what it is of, its random numbers, the token to feed next and its position, and all that were drawn;
    ``over``: its text and finish."""

    spec: Behind
    draws: list[float]
    feed: int
    position: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    over: tuple[str, str] | None = None


@torch.inference_mode()
def generated(backbone: Backbone, requests: Sequence[Behind]) -> list[list[Rollout]]:
    """The rollouts, without alternatives, of requests that are well formed and fit the context, all in one batch. What
    shares the batch changes no bit of a rollout."""
    groups = []
    for one in requests:
        seeds = one.seeds if one.temperature > 0 else [0] * one.n
        last, position = int(one.ids[-1]), len(one.past) + length_of(backbone, one) - 1
        groups.append([_Row(one, uniforms(seed, one.max_tokens).tolist(), last, position) for seed in seeds])
    rows = [row for group in groups for row in group]
    cache = _begun(backbone, requests)
    cache.reserve(max(row.position + row.spec.max_tokens for row in rows))
    cache, rows = _taken(backbone, cache, [place for place, group in enumerate(groups) for _ in group], rows)
    while live := [place for place, row in enumerate(rows) if row.over is None]:
        if len(live) <= 0.75 * len(rows) and len(rows) > backbone.least_rows:  # moving them costs a few tokens' time
            cache, rows = _taken(backbone, cache, live, [rows[place] for place in live])
            continue
        feed = torch.tensor([[row.feed] for row in rows], device=backbone.device)
        positions = torch.tensor([[row.position] for row in rows], device=backbone.device)
        logits = backbone.forward(backbone.embed(feed), positions, cache)[live, 0].float()
        drawing = [rows[place] for place in live]
        drawn = draw(logits, [row.spec for row in drawing], [row.draws[len(row.ids)] for row in drawing])
        for row, token, logprob, _ in zip(drawing, *drawn, strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.over = ended(backbone, row.spec, row.ids)
            if row.over is None:
                row.feed, row.position = token, row.position + 1
            else:
                METER.add(len(row.ids))
    return [
        [Rollout(tuple(row.ids), tuple(row.logprobs), *row.over) for row in group if row.over is not None]
        for group in groups
    ]


def _taken(
    backbone: Backbone, cache: RaggedCache, places: list[int], rows: list[_Row]
) -> tuple[RaggedCache, list[_Row]]:
    """A cache of the rows at ``places``, which are ``rows``' own, and the rows; filled up with idle ones to as many as
    a product takes at least."""
    idle = backbone.least_rows - len(rows)
    index = torch.tensor(places + places[:1] * idle, device=cache.keys[0].device)
    return cache.take(index), rows + [replace(rows[0], over=("", "")) for _ in range(idle)]


def _begun(backbone: Backbone, requests: Sequence[Behind]) -> RaggedCache:
    """A cache with a row per request: its activations from column 0 on, then its prompt, all but the last token."""
    prompts = [prompt_embeddings(backbone, one.ids[:-1], one.soft_prompt) for one in requests]
    starts = torch.tensor([len(one.past) for one in requests], device=backbone.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=backbone.device)
    width = round_up(int(lengths.max()), LEAST_ROWS)
    # All padding goes to the one column that the row's next token overwrites: no position beyond the context.
    positions = starts[:, None] + torch.arange(width, device=backbone.device).minimum(lengths[:, None])
    cache = backbone.new_cache([one.soft_prompt for one in requests])
    cache.capacity = round_up(int(positions.max()) + 1)
    for layer, part in enumerate(cache.parts):
        part.keys, part.values = (
            torch.stack([pad(states, (0, 0, 0, cache.capacity - states.shape[1])) for states in held])
            for held in ([one.past.keys[layer] for one in requests], [one.past.values[layer] for one in requests])
        )
    padded = torch.stack([pad(prompt, (0, 0, 0, width - len(prompt))) for prompt in prompts])
    backbone.forward(padded, positions, cache, all_logits=False)
    return cache
