"""Prompts into a key/value cache: what a rollout, and a gradient pass over rollouts, starts from.

Builds on backbone and cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.engines.base import KeyValues
from tacit.model.backbone import Backbone
from tacit.model.cache import RaggedCache, round_up

MIN_ROWS = 16  # matrix libraries take other code paths for a few rows, whose sums differ in the last bit


def prompt_embeddings(backbone: Backbone, ids: Tensor, soft_prompt: Tensor | None) -> Tensor:
    """[K + T, d] embeddings of a soft prompt followed by token ids, in the model's dtype; gradients flow."""
    embedded = backbone.embed(ids)
    if soft_prompt is None:
        return embedded
    return torch.cat([soft_prompt.to(embedded.device, embedded.dtype), embedded])


def prefill(
    backbone: Backbone, prompts: Sequence[Tensor], pasts: Sequence[KeyValues | None] | None = None
) -> RaggedCache:
    """The cache of ragged prompts [T_i, d], each behind its past if it has one, padded on the right (padding is
    overwritten or never read)."""
    width = max(1, *(len(prompt) for prompt in prompts)) if len(prompts) > 1 else max(1, len(prompts[0]))
    width = max(width, -(-MIN_ROWS // len(prompts)))
    # A multiple of 8, as far as there are positions: attention over other numbers of queries rounds in other ways.
    width = max(width, min(round_up(width, 8), backbone.context))
    padded = torch.stack([torch.nn.functional.pad(prompt, (0, 0, 0, width - len(prompt))) for prompt in prompts])
    positions = torch.arange(width, device=padded.device).expand(len(prompts), -1)
    if pasts is None or all(past is None for past in pasts):
        cache = backbone.new_cache()
    else:
        starts = torch.tensor([0 if past is None else len(past) for past in pasts], device=padded.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=padded.device)
        # All padding goes to the one column that the row's next token overwrites: no position beyond the context.
        positions = starts[:, None] + positions.minimum(lengths[:, None])
        cache = _begun(backbone, pasts, int(positions.max()) + 1)
    backbone.forward(padded, positions, cache, all_logits=False)
    return cache


def _begun(backbone: Backbone, pasts: Sequence[KeyValues | None], columns: int) -> RaggedCache:
    """A cache with room for ``columns`` columns that holds each row's past from column 0 on."""
    cache = backbone.new_cache()
    cache.capacity = round_up(columns)
    for layer, part in enumerate(cache.parts):
        part.keys = _rows([None if past is None else past.keys[layer] for past in pasts], cache.capacity, backbone)
        part.values = _rows([None if past is None else past.values[layer] for past in pasts], cache.capacity, backbone)
    return cache


def _rows(held: Sequence[Tensor | None], capacity: int, backbone: Backbone) -> Tensor:
    heads, _, width = next(states.shape for states in held if states is not None)
    rows = torch.zeros(len(held), heads, capacity, width, dtype=backbone.dtype, device=backbone.device)
    for row, states in zip(rows, held, strict=True):
        if states is not None:
            row[:, : states.shape[1]] = states
    return rows
