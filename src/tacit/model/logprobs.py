"""Log-probs of given tokens from hidden states, without the logits of all of them.

Builds on nothing but torch. With a vocabulary of 150,000, the logits of 16,384 tokens are 10 GB in float32, and a
softmax with its gradient holds them three times. Here they are made a part at a time. What the backward pass needs is
the gradient of each token's log-prob with respect to its own hidden state, one row of the model's width; it is computed
in the forward pass while the part's probabilities are at hand (as fused losses do; Hsu et al., Liger Kernel,
arXiv 2410.10989), so that nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

FLOATS_AT_ONCE = 1 << 25
"""Logits of one part: 128 MB in float32, of which two copies live at a time."""


def token_logprobs(states: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(states @ weight.T / temperature) at ``targets``; gradients reach ``states`` alone.

    Args:
        states: [N, d] in the model's dtype.
        weight: of the output head, [V, d]; frozen.
        targets: int64 [N].
        temperature: above 0.

    Returns:
        float32 [N], natural logs.
    """
    result: Tensor = _TokenLogprobs.apply(states, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return result


def logprobs_and_slopes(
    states: Tensor, weight: Tensor, targets: Tensor, temperature: float, *, wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """What ``token_logprobs`` returns, and (if wanted) the gradient [N, d] of each in its own hidden state."""
    # Even parts: a short one at the end would take another path through the matrix library (engines/prefill.py).
    parts = max(1, -(-len(states) * len(weight) // FLOATS_AT_ONCE))
    chosen, slopes = [], []
    for part, ids in zip(states.tensor_split(parts), targets.tensor_split(parts), strict=True):
        logprobs = torch.log_softmax(linear(part, weight).float() / temperature, dim=-1)
        chosen.append(logprobs.gather(1, ids[:, None])[:, 0])
        if wanted:  # d log p_y / d logits = (onehot(y) - p) / temperature
            slope = logprobs.exp_().neg_()
            slope[torch.arange(len(ids), device=ids.device), ids] += 1
            slopes.append((slope / temperature).to(weight.dtype) @ weight)
    return torch.cat(chosen), torch.cat(slopes) if wanted else None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        chosen, slopes = logprobs_and_slopes(states, weight, targets, temperature, wanted=wanted)
        if wanted:
            ctx.save_for_backward(slopes)
        return chosen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradient[:, None] * slopes).to(slopes.dtype), None, None, None
