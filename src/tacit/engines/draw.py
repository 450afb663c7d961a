"""Drawing tokens from logits, each row by its own random numbers, and how likely given tokens were to be drawn.

Builds on the engine protocol and on torch and numpy alone: vLLM servers, whose environment has no more, load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tacit.engines.base import Alternatives, Request
from tacit.model import fused

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone
    from tacit.model.cache import RaggedCache

SCORED_AT_ONCE = 512
"""Tokens whose logits are made together; they take as many times the vocabulary floats."""


def uniforms(seed: int, count: int) -> np.ndarray:
    """The random numbers in [0, 1) of a rollout's first ``count`` tokens, float64: functions of its seed alone."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def greeting(position: int, vocabulary: int) -> int:
    """What a server that draws like this one (vllm_draw.py) says at a position when it is greeted; other tokens with
    every version that draws differently."""
    return (11 + 7 * position + position * position) % vocabulary


def draw(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """Draw one token per row by inverting the cumulative distribution at the row's own uniform number.

    Args:
        logits: float32 [R, V].
        specs: each row's request (temperature, top_p, top_k, min_p).
        draws: each row's uniform number in [0, 1).

    Returns:
        Token ids, their natural-log probabilities under the distribution drawn from (greedy: at T = 1), and the most
        likely tokens of that distribution, as many for every row as any row's ``top`` asks for.
    """
    if logits.device.type != "cpu" or not fused.available():
        return _drawn(logits, specs, draws)
    # A row is drawn in the same way whatever else is asked for beside it.
    whole = [not spec.narrow for spec in specs]
    if all(whole):
        return _compiled(logits, specs, draws)
    tokens, logprobs = [0] * len(specs), [0.0] * len(specs)
    alternatives: list[Alternatives] = [()] * len(specs)
    for way, kind in ((_compiled, True), (_drawn, False)):
        rows = [row for row, is_whole in enumerate(whole) if is_whole is kind]
        if rows:
            found = way(logits[rows], [specs[row] for row in rows], [draws[row] for row in rows])
            for row, token, logprob, likely in zip(rows, *found, strict=True):
                tokens[row], logprobs[row], alternatives[row] = token, logprob, likely
    return tokens, logprobs, alternatives


def _drawn(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """``draw`` through PyTorch."""
    logprobs = distribution(logits, specs)
    greedy = torch.tensor([spec.temperature == 0 for spec in specs], device=logits.device)
    if bool(greedy.all()):
        tokens = logits.argmax(-1)
    else:
        cumulative = logprobs.exp().cumsum(-1)
        target = torch.tensor(draws, dtype=cumulative.dtype, device=logits.device) * cumulative[:, -1]
        sampled = (cumulative <= target[:, None]).sum(-1).clamp(max=logits.shape[1] - 1)
        tokens = torch.where(greedy, logits.argmax(-1), sampled)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), chosen.tolist(), most_likely(logprobs, max(spec.top for spec in specs))


def _compiled(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """``draw`` in one loop, for rows of which every token may be drawn."""
    from tacit.model.fused.forward import draw_rows

    rows, vocabulary = logits.shape
    drawn, logprobs = np.empty(rows, np.int64), np.empty(rows, np.float32)
    temperature = np.array([spec.temperature for spec in specs], np.float32)
    values = logits.contiguous().view(-1).numpy()
    draw_rows(values, rows, vocabulary, temperature, np.array(draws, np.float64), drawn, logprobs)
    tokens, chosen = drawn.tolist(), logprobs.tolist()
    top = max(spec.top for spec in specs)
    if not top:
        return tokens, chosen, [()] * rows
    # The token drawn has one log-prob, wherever it is told.
    likely = most_likely(distribution(logits, specs), top)
    told = [
        tuple((i, logprob if i == token else p) for i, p in some)
        for some, token, logprob in zip(likely, tokens, chosen, strict=True)
    ]
    return tokens, chosen, told


def distribution(logits: Tensor, specs: Sequence[Request]) -> Tensor:
    """Log-probs [R, V] of the distribution that each row is drawn from (greedy: at T = 1).

    Args:
        logits: float32 [R, V].
        specs: each row's request (temperature, top_p, top_k, min_p).
    """
    temperature = torch.tensor([spec.temperature or 1.0 for spec in specs], device=logits.device)
    logprobs = torch.log_softmax(logits / temperature[:, None], dim=-1)
    few = [spec.narrow and (spec.top_k > 0 or spec.min_p > 0) for spec in specs]
    if any(few):
        top_k = torch.tensor([spec.top_k or logits.shape[1] for spec in specs], device=logits.device)
        min_p = torch.tensor([spec.min_p for spec in specs], device=logits.device)
        chosen = torch.tensor(few, device=logits.device)
        logprobs = torch.where(chosen[:, None], _likeliest(logprobs, top_k, min_p), logprobs)
    narrow = [spec.temperature > 0 and spec.top_p < 1 for spec in specs]
    if any(narrow):
        top_p = torch.tensor([spec.top_p for spec in specs], device=logits.device)
        chosen = torch.tensor(narrow, device=logits.device)
        logprobs = torch.where(chosen[:, None], _nucleus(logprobs, top_p), logprobs)
    return logprobs


def scores(
    backbone: Backbone, cache: RaggedCache, start: int, embeds: Tensor, targets: Tensor, spec: Request
) -> list[tuple[float, Alternatives]]:
    """The log-prob of a token after each of some embeddings, and the most likely tokens (``spec.top``) in its place.

    Args:
        backbone: the model.
        cache: one row, of what stands before them.
        start: the position of the first.
        embeds: [T, d].
        targets: token ids [T].
        spec: the request of whose distribution they are.
    """
    found: list[tuple[float, Alternatives]] = []
    cache.reserve(start + len(embeds))
    for at in range(0, len(embeds), SCORED_AT_ONCE):
        part, wanted = embeds[at : at + SCORED_AT_ONCE], targets[at : at + SCORED_AT_ONCE].to(embeds.device)
        positions = torch.arange(start + at, start + at + len(part), device=embeds.device)[None]
        logits = backbone.forward(part[None], positions, cache)[0].float()
        logprobs = distribution(logits, [spec] * len(part))
        found += zip(logprobs.gather(1, wanted[:, None])[:, 0].tolist(), most_likely(logprobs, spec.top), strict=True)
    return found


def most_likely(logprobs: Tensor, top: int) -> list[Alternatives]:
    """The ``top`` most likely tokens of each row of [R, V], best first, equal ones by id; those of probability 0 are
    left out."""
    if not top:
        return [()] * len(logprobs)
    best, ids = logprobs.topk(min(top, logprobs.shape[1]), dim=-1)
    return [
        tuple(sorted(((i, p) for i, p in zip(*pair, strict=True) if p > -torch.inf), key=lambda one: (-one[1], one[0])))
        for pair in zip(ids.tolist(), best.tolist(), strict=True)
    ]


def _likeliest(logprobs: Tensor, top_k: Tensor, min_p: Tensor) -> Tensor:
    """Log-probs renormalised over the ``top_k`` most likely tokens (of equal ones those of lower id) that are at least
    ``min_p`` times as likely as the first."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    first = torch.arange(logprobs.shape[1], device=logprobs.device) < top_k[:, None]
    kept = first & (ordered >= ordered[:, :1] + min_p.log()[:, None])
    return torch.log_softmax(logprobs.masked_fill(~torch.empty_like(kept).scatter(1, order, kept), -torch.inf), dim=-1)


def _nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of most likely tokens whose mass reaches ``top_p``."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.empty_like(before, dtype=torch.bool).scatter(1, order, before < top_p[:, None])
    return torch.log_softmax(logprobs.masked_fill(~kept, -torch.inf), dim=-1)
