"""The policy gradient of one group of rollouts on a CPU: forward and backward pass written out.

Builds on model and the compiled passes. What ``gradients.policy_loss`` and autograd compute (a loss of - A_i log pi
summed over a group's tokens, its gradient in the soft prompt), with nothing computed that the soft prompt has no use
for: prompt and rollouts are ragged rows of one matrix, the prompt once for all rollouts; of the last layer the prompt
has keys and values alone; in the first, only the soft prompt's rows go back through the projections. A group is a pass
of its own, so what is learned beside it changes no bit. A reward model reads responses by the forward pass alone.

A group is a prompt of P tokens and the tokens of its R rollouts. ``keep`` says where in a layer's part of ``kept`` each
thing lies that the way back needs; last, how long a part is. Queries are [heads, P', size] and [kv, R, share, T',
size]; weights [heads, P', P'], [kv, R, share, T', P'] and [kv R, share T', T']; P' and T' are whole tiles.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.model.decoder import logprobs_and_slopes
from tacit.model.fused.forward import (
    ATTENTION_NORM,
    DOWN,
    GATE_UP,
    HEAD_NORMS,
    LAYER,
    MLP_NORM,
    OUT,
    QKV,
    each,
    mlp,
    output,
    project,
)
from tacit.model.fused.lanes import compiled, gemm
from tacit.model.fused.loops import (
    join_rows,
    join_rows_backward,
    norm_rows,
    norm_rows_backward,
    silu_mul_backward,
    softmax,
    softmax_backward,
    split_rows,
    split_rows_backward,
)
from tacit.model.fused.model import NONE, Floats, Fused, Passes, flat, up

INPUT, PROJECTED, Q, K, V, WEIGHTS, ROW_Q, ROW_K, ROW_V, SHARED, OWN, MIDDLE, GATED, PART = range(14)
"""Indices into ``keep``."""

FLOATS_KEPT = 1 << 27
"""Most values (512 MB of float32) that a pass may keep for its way back; longer groups take autograd's way, which does
not hold attention's weights."""


FLOATS_HELD = 1 << 26
"""Room (128 MB) that a thread holds on to for its next pass: fresh pages take the system a tenth of one."""

_HELD = threading.local()


def _room(count: int) -> Floats:
    """So many values of anything, for this thread's pass."""
    if count > FLOATS_HELD:
        return np.empty(count, np.float32)
    held: Floats = getattr(_HELD, "room", NONE)
    if len(held) < count:
        _HELD.room = held = np.empty(count, np.float32)
    return held[:count]


class GroupPass:
    """One group's pass.

    Args:
        passes: of the model.
        prompt: tokens of the prompt, soft prompt included, without its last where gradients are wanted.
        lengths: tokens of each rollout.
    """

    def __init__(self, passes: Passes, prompt: int, lengths: list[int]) -> None:
        self.passes, self.prompt = passes, prompt
        self.lengths, self.own = np.array(lengths), sum(lengths)
        self.width, self.wide = up(max(lengths)), up(prompt)
        rows, tokens = len(lengths) * self.width, prompt + self.own
        heads, kv, size, dim = passes.heads, passes.kv, passes.head_dim, passes.dim
        sizes = (
            tokens * dim, tokens * (heads + 2 * kv) * size,
            heads * self.wide * size, kv * self.wide * size, kv * self.wide * size, heads * self.wide**2,
            heads * rows * size, kv * rows * size, kv * rows * size,
            heads * rows * self.wide, heads * rows * self.width,
            tokens * dim, tokens * 2 * passes.hidden,
        )  # fmt: skip
        self.keep = tuple(int(place) for place in np.cumsum([0, *sizes]))
        self.kept = self.keep[-1] * passes.layers
        """Values that the pass keeps for its way back."""
        self.fits = self.kept <= FLOATS_KEPT
        """Whether that is not too much; a pass that does not fit is not to be made."""
        self._angles = passes.angles(prompt + max(lengths))
        self._group = (prompt, self.lengths, self.width, self.wide, self.keep)

    def gradient(self, embeds: Tensor, soft: int, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
        """The gradient [soft, d] of - sum weights * log pi(targets) in the first rows of ``embeds``.

        Args:
            embeds: float32 [prompt + tokens of the rollouts, d]: the prompt but its last token; then for each rollout
                the prompt's last token and all its own but the last.
            soft: rows of the soft prompt.
            targets: int64, each rollout's tokens.
            weights: float32, of each target.
            temperature: that they were sampled at.
        """
        kept = _room(self.kept)
        last, states = self._forward(embeds, kept)
        _, slopes = logprobs_and_slopes(states, self.passes.scores, targets, temperature)
        assert slopes is not None
        slopes *= -weights[:, None]
        return self._backward(kept, last, slopes, soft)

    def states(self, embeds: Tensor) -> Tensor:
        """The last hidden states [tokens of the rollouts, d], normalised, of rollouts that are read.

        Args:
            embeds: float32 [prompt + tokens of the rollouts, d]: the prompt, then each rollout.
        """
        return self._forward(embeds, _room(self.kept))[1]

    def inputs(self, embeds: Tensor, layer: int) -> Tensor:
        """What goes into a layer (0 is the first), [prompt + tokens of the rollouts, d]; see ``states``."""
        kept = _room(self.kept)
        self._forward(embeds, kept)
        begin = layer * self.keep[-1] + self.keep[INPUT]
        return torch.from_numpy(kept[begin : begin + embeds.numel()]).clone().view_as(embeds)

    def _forward(self, embeds: Tensor, kept: Floats) -> tuple[Tensor, Tensor]:
        """The rollouts' last hidden states, and the same normalised."""
        raise NotImplementedError

    def _backward(self, kept: Floats, last: Tensor, slopes: Tensor, soft: int) -> Tensor:
        """The gradient of the first ``soft`` rows, from that of the normalised last hidden states."""
        raise NotImplementedError


class FusedGroup(GroupPass):
    """Of a small model, in two calls."""

    passes: Fused

    def _forward(self, embeds: Tensor, kept: Floats) -> tuple[Tensor, Tensor]:
        last, states = torch.empty(2, self.own, self.passes.dim)
        ends = (flat(last), self.passes.norm, flat(states))
        forward_group(*self.passes.model, *self._angles, flat(embeds), *self._group, kept, *ends)
        return last, states

    def _backward(self, kept: Floats, last: Tensor, slopes: Tensor, soft: int) -> Tensor:
        found = torch.empty(soft, self.passes.dim)
        ends = (flat(last), self.passes.norm, flat(slopes))
        backward_group(*self.passes.model, *self._angles, *self._group, kept, *ends, soft, flat(found))
        return found


@compiled
def attend_group(
    blas: int, shape: Any, norms: Any, normed_heads: bool, eps: float, cos: Any, sin: Any, prompt: int, lengths: Any,
    width: int, wide: int, keep: Any, part: Any, final: bool, mixed: Any,
) -> None:  # fmt: skip
    """What attention mixes of a layer's projections, which are in ``part``; of the ``final`` one the rollouts' alone,
    since nobody asks for what its prompt sees."""
    heads, kv, size = shape[2], shape[3], shape[4]
    share, rows, scale = heads // kv, len(lengths), size**-0.5
    high = share * width
    only = np.full(1, prompt)
    seen = np.empty(heads * max(rows * width, wide) * size, np.float32)
    qkv = part[keep[PROJECTED] : keep[Q]]
    q, k, v = part[keep[Q] : keep[K]], part[keep[K] : keep[V]], part[keep[V] : keep[WEIGHTS]]
    rq, rk, rv = part[keep[ROW_Q] : keep[ROW_K]], part[keep[ROW_K] : keep[ROW_V]], part[keep[ROW_V] : keep[SHARED]]
    part[keep[Q] : keep[WEIGHTS]] = 0
    part[keep[ROW_Q] : keep[SHARED]] = 0
    split_rows(qkv, only, wide, heads, kv, size, norms, normed_heads, eps, cos, sin, 0, q, k, v)
    own_qkv = qkv[prompt * (heads + 2 * kv) * size :]
    split_rows(own_qkv, lengths, width, heads, kv, size, norms, normed_heads, eps, cos, sin, prompt, rq, rk, rv)
    if not final:
        scores = part[keep[WEIGHTS] : keep[ROW_Q]]
        each(blas, kv, False, True, share * wide, wide, size, q, k, 0.0, scores)
        softmax(scores, 0, 0, scores, only, kv, share, wide, scale)
        each(blas, kv, False, False, share * wide, size, wide, scores, v, 0.0, seen)
        join_rows(seen, only, wide, heads, kv, size, mixed)
    shared, own = part[keep[SHARED] : keep[OWN]], part[keep[OWN] : keep[MIDDLE]]
    each(blas, kv, False, True, rows * high, wide, size, rq, k, 0.0, shared)
    each(blas, kv * rows, False, True, high, width, size, rq, rk, 0.0, own)
    softmax(shared, wide, prompt, own, lengths, kv, share, width, scale)
    each(blas, kv, False, False, rows * high, size, wide, shared, v, 0.0, seen)
    each(blas, kv * rows, False, False, high, size, width, own, rv, 1.0, seen)
    join_rows(seen, lengths, width, heads, kv, size, mixed[0 if final else prompt * heads * size :])


@compiled
def forward_group(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, normed_heads: bool, biased: Any, cos: Any, sin: Any,
    embeds: Any, prompt: int, lengths: Any, width: int, wide: int, keep: Any, kept: Any, last: Any, norm: Any,
    states: Any,
) -> None:  # fmt: skip
    """All layers; ``last`` [tokens - prompt, width of the model] is the rollouts' last hidden states, ``states`` the
    same normed."""
    layers, dim, heads, _, size, hidden, _ = shape
    tokens = len(embeds) // dim
    normed, mixed = np.empty(tokens * dim, np.float32), np.empty(tokens * heads * size, np.float32)
    active = np.empty(tokens * hidden, np.float32)
    kept[: len(embeds)] = embeds
    for layer in range(layers):
        at, part = layer * places[LAYER], kept[layer * keep[PART] : (layer + 1) * keep[PART]]
        final = layer == layers - 1
        begin = prompt if final else 0
        count = tokens - begin
        x, qkv = part[keep[INPUT] : keep[PROJECTED]], part[keep[PROJECTED] : keep[Q]]
        project(blas, shape, places, weights, eps, biased, at, tokens, tokens, x, normed, qkv)
        attend_group(
            blas, shape, weights[at + places[HEAD_NORMS] :], normed_heads, eps, cos, sin, prompt, lengths, width, wide,
            keep, part, final, mixed,
        )  # fmt: skip
        middle = part[keep[MIDDLE] : keep[MIDDLE] + count * dim]
        middle[:] = x[begin * dim :]
        output(blas, shape, places, weights, biased, at, count, mixed, middle)
        target = last
        if not final:
            target = kept[(layer + 1) * keep[PART] : (layer + 1) * keep[PART] + tokens * dim]
        target[:] = middle
        mlp(blas, shape, places, weights, eps, at, count, count, target, normed, part[keep[GATED] : keep[PART]], active)
    norm_rows(last, tokens - prompt, dim, norm, eps, states)


@compiled
def attention_backward(
    blas: int, shape: Any, norms: Any, normed_heads: bool, eps: float, cos: Any, sin: Any, prompt: int, lengths: Any,
    width: int, wide: int, keep: Any, part: Any, final: bool, first: bool, mixed: Any, back: Any,
) -> None:  # fmt: skip
    """Gradients of a layer's projections, from that of what attention mixed; of the ``first`` layer the prompt's alone.
    ``back`` gets them, and on the way those of queries, keys, values and weights, where ``part`` has these."""
    heads, kv, size = shape[2], shape[3], shape[4]
    share, rows, scale = heads // kv, len(lengths), size**-0.5
    high = share * width
    only = np.full(1, prompt)
    held_q, held_k, held_v = part[keep[Q] : keep[K]], part[keep[K] : keep[V]], part[keep[V] : keep[WEIGHTS]]
    held_rq, held_rk = part[keep[ROW_Q] : keep[ROW_K]], part[keep[ROW_K] : keep[ROW_V]]
    held_rv, held = part[keep[ROW_V] : keep[SHARED]], part[keep[WEIGHTS] : keep[ROW_Q]]
    held_shared, held_own = part[keep[SHARED] : keep[OWN]], part[keep[OWN] : keep[MIDDLE]]
    q, k, v = back[keep[Q] : keep[K]], back[keep[K] : keep[V]], back[keep[V] : keep[WEIGHTS]]
    rq, rk, rv = back[keep[ROW_Q] : keep[ROW_K]], back[keep[ROW_K] : keep[ROW_V]], back[keep[ROW_V] : keep[SHARED]]
    weights, shared = back[keep[WEIGHTS] : keep[ROW_Q]], back[keep[SHARED] : keep[OWN]]
    own, qkv = back[keep[OWN] : keep[MIDDLE]], back[keep[PROJECTED] : keep[Q]]
    projected = part[keep[PROJECTED] : keep[Q]]
    # What was mixed lies where its queries' gradients will, until nothing asks for it.
    join_rows_backward(mixed[0 if final else prompt * heads * size :], lengths, width, heads, kv, size, rq)
    each(blas, kv, False, True, rows * high, wide, size, rq, held_v, 0.0, shared)
    each(blas, kv * rows, False, True, high, width, size, rq, held_rv, 0.0, own)
    each(blas, kv, True, False, wide, size, rows * high, held_shared, rq, 0.0, v)
    each(blas, kv * rows, True, False, width, size, high, held_own, rq, 0.0, rv)
    softmax_backward(held_shared, shared, wide, held_own, own, width, heads * rows * width, scale)
    each(blas, kv, False, False, rows * high, size, wide, shared, held_k, 0.0, rq)
    each(blas, kv * rows, False, False, high, size, width, own, held_rk, 1.0, rq)
    each(blas, kv, True, False, wide, size, rows * high, shared, held_rq, 0.0, k)
    each(blas, kv * rows, True, False, width, size, high, own, held_rq, 0.0, rk)
    if final:
        q[:] = 0
    else:
        join_rows_backward(mixed, only, wide, heads, kv, size, q)
        each(blas, kv, False, True, share * wide, wide, size, q, held_v, 0.0, weights)
        each(blas, kv, True, False, wide, size, share * wide, held, q, 1.0, v)
        softmax_backward(held, weights, 0, held, weights, wide, heads * wide, scale)
        each(blas, kv, False, False, share * wide, size, wide, weights, held_k, 0.0, q)
        each(blas, kv, True, False, wide, size, share * wide, weights, held_q, 1.0, k)
    split_rows_backward(projected, only, wide, heads, kv, size, norms, normed_heads, eps, cos, sin, 0, q, k, v, qkv)
    if not first:
        later = prompt * (heads + 2 * kv) * size
        split_rows_backward(
            projected[later:], lengths, width, heads, kv, size, norms, normed_heads, eps, cos, sin, prompt, rq, rk, rv,
            qkv[later:],
        )  # fmt: skip


@compiled
def backward_group(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, normed_heads: bool, biased: Any, cos: Any, sin: Any,
    prompt: int, lengths: Any, width: int, wide: int, keep: Any, kept: Any, last: Any, norm: Any, slopes: Any,
    soft: int, out: Any,
) -> None:  # fmt: skip
    """From the gradient ``slopes`` of the normed last hidden states to that of the first ``soft`` embeddings."""
    layers, dim, heads, kv, size, hidden, _ = shape
    own_tokens = len(last) // dim
    tokens, projected, seen = prompt + own_tokens, (heads + 2 * kv) * size, heads * size
    none = np.float32(0)
    active, gated = np.empty(tokens * hidden, np.float32), np.empty(tokens * 2 * hidden, np.float32)
    normed, mixed = np.empty(tokens * dim, np.float32), np.empty(tokens * seen, np.float32)
    back = np.empty(keep[MIDDLE], np.float32)
    gradient = np.zeros(own_tokens * dim, np.float32)
    norm_rows_backward(last, own_tokens, dim, norm, eps, slopes, gradient)
    for layer in range(layers - 1, -1, -1):
        at, part = layer * places[LAYER], kept[layer * keep[PART] : (layer + 1) * keep[PART]]
        whole = layer < layers - 1
        count = tokens if whole else own_tokens
        up, down, mlp_norm = at + places[GATE_UP], at + places[DOWN], weights[at + places[MLP_NORM] :]
        gemm(blas, False, True, count, hidden, dim, gradient, 0, dim, weights, down, dim, none, active, 0, hidden)
        silu_mul_backward(part[keep[GATED] : keep[PART]], count, hidden, active, gated)
        gemm(blas, False, True, count, dim, 2 * hidden, gated, 0, 2 * hidden, weights, up, 2 * hidden, none, normed, 0,
             dim)  # fmt: skip
        norm_rows_backward(part[keep[MIDDLE] : keep[GATED]], count, dim, mlp_norm, eps, normed, gradient)
        gemm(
            blas, False, True, count, seen, dim, gradient, 0, dim, weights, at + places[OUT], dim, none, mixed, 0,
            seen,
        )  # fmt: skip
        attention_backward(
            blas, shape, weights[at + places[HEAD_NORMS] :], normed_heads, eps, cos, sin, prompt, lengths, width, wide,
            keep, part, not whole, layer == 0, mixed, back,
        )  # fmt: skip
        wanted = tokens if layer else soft  # in the first, only the soft prompt goes back through the projections
        if not whole:  # the last layer's prompt had keys and values alone
            spread_out = np.zeros(tokens * dim, np.float32)
            spread_out[prompt * dim :] = gradient
            gradient = spread_out
        gemm(
            blas, False, True, wanted, dim, projected, back, keep[PROJECTED], projected, weights, at + places[QKV],
            projected, none, normed, 0, dim,
        )  # fmt: skip
        norm_rows_backward(part, wanted, dim, weights[at + places[ATTENTION_NORM] :], eps, normed, gradient)
    out[:] = gradient[: soft * dim]
