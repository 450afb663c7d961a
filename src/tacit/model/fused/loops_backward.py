"""Compiled loops of the backward pass between its matrix products, for loops.py's forward ones.

Builds on lanes and loops. Layouts are those of loops.py. Only the gradients of inputs are made: weights are frozen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.model.fused.lanes import LANES, add, compiled, div, exp, fma, load, mul, splat, store, sub, total
from tacit.model.fused.loops import per_rms


@compiled
def _norm_slopes(x: Any, at: int, gradient: Any, g: int, weight: Any, w: int, width: int, eps: float) -> Any:
    """a and b of a norm's way back, a * (gradient * weight) + b * x, for one row."""
    along = splat(np.float32(0))
    for i in range(0, width, LANES):
        along = fma(mul(load(gradient, g + i), load(weight, w + i)), load(x, at + i), along)
    scale = per_rms(x, at, width, eps)
    return scale, -total(along) * scale * scale * scale / np.float32(width)


@compiled
def norm_rows_backward(x: Any, rows: int, width: int, weight: Any, eps: float, gradient: Any, out: Any) -> None:
    """Adds to ``out`` the gradient of x, given that of x / rms(x) * weight."""
    for row in range(rows):
        at = row * width
        scale, back = _norm_slopes(x, at, gradient, at, weight, 0, width, eps)
        for i in range(0, width, LANES):
            inner = mul(mul(load(gradient, at + i), load(weight, i)), splat(scale))
            store(out, at + i, add(load(out, at + i), fma(load(x, at + i), splat(back), inner)))


@compiled
def silu_mul_backward(gate_up: Any, rows: int, width: int, gradient: Any, out: Any) -> None:
    """Gradient [rows, 2 width] of gate and up, given that [rows, width] of silu(gate) * up."""
    one, zero = splat(np.float32(1)), splat(np.float32(0))
    for row in range(rows):
        at = row * 2 * width
        for i in range(0, width, LANES):
            gate, given = load(gate_up, at + i), load(gradient, row * width + i)
            sigmoid = div(one, add(one, exp(sub(zero, gate))))
            slope = mul(sigmoid, fma(gate, sub(one, sigmoid), one))
            store(out, at + i, mul(mul(given, load(gate_up, at + width + i)), slope))
            store(out, at + width + i, mul(given, mul(gate, sigmoid)))


@compiled
def _turn_head(
    x: Any, at: int, dim: int, weight: Any, w: int, normed: bool, eps: float, cos: Any, sin: Any, c: int,
    gradient: Any, g: int, out: Any, o: int,
) -> None:  # fmt: skip
    """The gradient of one head of the projections, from that of the normed and rotated head."""
    half = dim // 2
    for i in range(0, half, LANES):
        low, high = load(gradient, g + i), load(gradient, g + half + i)
        cosine, sine = load(cos, c + i), load(sin, c + i)
        store(out, o + i, fma(low, cosine, mul(high, sine)))
        store(out, o + half + i, sub(mul(high, cosine), mul(low, sine)))
    if not normed:
        return
    scale, back = _norm_slopes(x, at, out, o, weight, w, dim, eps)
    for i in range(0, dim, LANES):
        inner = mul(mul(load(out, o + i), load(weight, w + i)), splat(scale))
        store(out, o + i, fma(load(x, at + i), splat(back), inner))


@compiled
def split_rows_backward(
    qkv: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, weight: Any, normed: bool, eps: float, cos: Any,
    sin: Any, position: int, q: Any, k: Any, v: Any, capacity: int, out: Any,
) -> None:  # fmt: skip
    """The gradient of ``qkv``, given those (q, k, v) of what ``split_rows`` makes of it (offset 0)."""
    share, rows, half = heads // kv, len(lengths), dim // 2
    token = 0
    for row in range(rows):
        for t in range(lengths[row]):
            at, angle = token * (heads + 2 * kv) * dim, (position + t) * half
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                to, w = at + head * dim, head * dim
                _turn_head(qkv, to, dim, weight, w, normed, eps, cos, sin, angle, q, place, out, to)
            for head in range(kv):
                place = ((head * rows + row) * capacity + t) * dim
                to, w = at + (heads + head) * dim, (heads + head) * dim
                _turn_head(qkv, to, dim, weight, w, normed, eps, cos, sin, angle, k, place, out, to)
                for i in range(0, dim, LANES):
                    store(out, to + kv * dim + i, load(v, place + i))
            token += 1


@compiled
def join_rows_backward(gradient: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, out: Any) -> None:
    """Ragged rows [tokens, heads dim] to [kv, rows, heads / kv, width, dim], zeros where there is no token."""
    share, rows = heads // kv, len(lengths)
    zero = splat(np.float32(0))
    token = 0
    for row in range(rows):
        for t in range(width):
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                for i in range(0, dim, LANES):
                    if t < lengths[row]:
                        store(out, place + i, load(gradient, (token * heads + head) * dim + i))
                    else:
                        store(out, place + i, zero)
            if t < lengths[row]:
                token += 1


@compiled
def softmax_backward(
    shared: Any, shared_gradient: Any, wide: int, own: Any, own_gradient: Any, capacity: int, rows: int, scale: float
) -> None:
    """Gradients of scores, in place of those of the weights ``shared`` [rows, wide] and ``own`` [rows, capacity] that
    ``softmax`` made of them."""
    by = splat(np.float32(scale))
    for row in range(rows):
        a, b = row * wide, row * capacity
        along = splat(np.float32(0))
        for c in range(0, wide, LANES):
            along = fma(load(shared, a + c), load(shared_gradient, a + c), along)
        for c in range(0, capacity, LANES):
            along = fma(load(own, b + c), load(own_gradient, b + c), along)
        mean = splat(total(along))
        for c in range(0, wide, LANES):
            change = mul(load(shared, a + c), sub(load(shared_gradient, a + c), mean))
            store(shared_gradient, a + c, mul(change, by))
        for c in range(0, capacity, LANES):
            change = mul(load(own, b + c), sub(load(own_gradient, b + c), mean))
            store(own_gradient, b + c, mul(change, by))
