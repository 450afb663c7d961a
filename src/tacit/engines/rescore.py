"""Log-probs of rollouts that somebody else drew, computed here.

Builds on backbone, prefill, draw and the engine protocol. A server reports log-probs of some distribution, by default
of temperature 1 and of every token; where a rollout was drawn from another one, what it reports is not what a rollout's
log-probs are (engines/base.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tacit.engines.base import Alternatives, Request, Rollout
from tacit.engines.checks import past_of
from tacit.engines.draw import distribution, most_likely
from tacit.engines.prefill import prefill, prompt_embeddings
from tacit.model.backbone import Backbone
from tacit.model.cache import RaggedCache

SCORED_AT_ONCE = 512
"""Tokens whose logits are made together; they take as many times the vocabulary floats."""


@torch.inference_mode()
def rescored(backbone: Backbone, request: Request, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with the log-probs, and the alternatives where asked for, of the distribution that ``request`` draws
    from; the prompt is computed once."""
    prompt = prompt_embeddings(backbone, request.ids[:-1], request.soft_prompt)
    prefix = prefill(backbone, [prompt], [request.past])
    start = past_of(request) + len(prompt)
    return [_rescored(backbone, request, rollout, prefix, start) for rollout in rollouts]


def _rescored(backbone: Backbone, request: Request, rollout: Rollout, prefix: RaggedCache, start: int) -> Rollout:
    device = backbone.device
    drawn = torch.tensor(rollout.token_ids, device=device)
    fed = torch.cat([request.ids[-1:].to(device), drawn[:-1]])
    cache = prefix.take(torch.zeros(1, dtype=torch.int64, device=device))
    cache.reserve(start + len(fed))
    logprobs: list[float] = []
    alternatives: list[Alternatives] = []
    for at in range(0, len(fed), SCORED_AT_ONCE):
        part = fed[at : at + SCORED_AT_ONCE]
        positions = torch.arange(start + at, start + at + len(part), device=device)[None]
        logits = backbone.forward(backbone.embed(part)[None], positions, cache)[0].float()
        found = distribution(logits, [request] * len(part))
        logprobs += found.gather(1, drawn[at : at + len(part), None])[:, 0].tolist()
        alternatives += most_likely(found, request.top)
    return replace(rollout, logprobs=tuple(logprobs), alternatives=tuple(alternatives) if request.top else ())
