"""Compiled loops between the matrix products of whole rows: norms, rotations, attention's weights, and the way back.

Builds on lanes. All arrays are flat, contiguous float32 (counts and places int64). Each row is computed by itself, in
an order that depends on its own length alone. So it has the same bits in any batch. Of the way back only the gradients
of inputs are made: weights are frozen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.model.fused.lanes import (
    LANES,
    add,
    compiled,
    div,
    exp,
    first,
    fma,
    largest,
    load,
    maximum,
    mul,
    splat,
    store,
    sub,
    total,
)

NOTHING = np.float32(-1e30)  # the score of a column that is not there; exp of it is 0 beside any other


@compiled
def _per_rms(x: Any, at: int, width: int, eps: float) -> Any:
    """1 / rms of the ``width`` values from x[at] on."""
    squares = splat(np.float32(0))
    for i in range(0, width, LANES):
        value = load(x, at + i)
        squares = fma(value, value, squares)
    return np.float32(1 / np.sqrt(total(squares) / np.float32(width) + np.float32(eps)))


@compiled
def _norm_slopes(x: Any, at: int, gradient: Any, g: int, weight: Any, w: int, width: int, eps: float) -> Any:
    """a and b of a norm's way back, a * (gradient * weight) + b * x, for one row."""
    along = splat(np.float32(0))
    for i in range(0, width, LANES):
        along = fma(mul(load(gradient, g + i), load(weight, w + i)), load(x, at + i), along)
    scale = _per_rms(x, at, width, eps)
    return scale, -total(along) * scale * scale * scale / np.float32(width)


@compiled
def norm_rows(x: Any, rows: int, width: int, weight: Any, eps: float, out: Any) -> None:
    """out = x / rms(x) * weight, for each of ``rows`` rows."""
    for row in range(rows):
        at = row * width
        scale = splat(_per_rms(x, at, width, eps))
        for i in range(0, width, LANES):
            store(out, at + i, mul(mul(load(x, at + i), scale), load(weight, i)))


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
def silu_mul(gate_up: Any, rows: int, width: int, out: Any) -> None:
    """out [rows, width] = silu(gate) * up, of [rows, 2 width]."""
    one = splat(np.float32(1))
    for row in range(rows):
        at = row * 2 * width
        for i in range(0, width, LANES):
            gate = load(gate_up, at + i)
            gate = div(gate, add(one, exp(sub(splat(np.float32(0)), gate))))
            store(out, row * width + i, mul(gate, load(gate_up, at + width + i)))


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
def turn_head(
    x: Any, at: int, dim: int, weight: Any, w: int, normed: bool, eps: float, cos: Any, sin: Any, c: int, out: Any,
    o: int,
) -> None:  # fmt: skip
    """One head: normed (weights from ``w`` on) and rotated (angles from ``c`` on), from x[at:] to out[o:]."""
    half = dim // 2
    scale = splat(_per_rms(x, at, dim, eps) if normed else np.float32(1))
    for i in range(0, half, LANES):
        low, high = load(x, at + i), load(x, at + half + i)
        if normed:
            low = mul(mul(low, scale), load(weight, w + i))
            high = mul(mul(high, scale), load(weight, w + half + i))
        cosine, sine = load(cos, c + i), load(sin, c + i)
        store(out, o + i, sub(mul(low, cosine), mul(high, sine)))
        store(out, o + half + i, fma(high, cosine, mul(low, sine)))


@compiled
def _turn_head_backward(
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
def split_rows(
    qkv: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, weight: Any, normed: bool, eps: float, cos: Any,
    sin: Any, position: int, q: Any, k: Any, v: Any,
) -> None:  # fmt: skip
    """Ragged sequences, one after another in ``qkv``, into rows of ``width``: queries [kv, rows, heads / kv, width,
    dim], and keys and values [kv, rows, width, dim]. Each starts at ``position``."""
    share, rows, half = heads // kv, len(lengths), dim // 2
    token = 0
    for row in range(rows):
        for t in range(lengths[row]):
            at, angle = token * (heads + 2 * kv) * dim, (position + t) * half
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                turn_head(qkv, at + head * dim, dim, weight, head * dim, normed, eps, cos, sin, angle, q, place)
            for head in range(kv):
                source = heads + head
                place = ((head * rows + row) * width + t) * dim
                turn_head(qkv, at + source * dim, dim, weight, source * dim, normed, eps, cos, sin, angle, k, place)
                for i in range(0, dim, LANES):
                    store(v, place + i, load(qkv, at + (heads + kv + head) * dim + i))
            token += 1


@compiled
def split_rows_backward(
    qkv: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, weight: Any, normed: bool, eps: float, cos: Any,
    sin: Any, position: int, q: Any, k: Any, v: Any, out: Any,
) -> None:  # fmt: skip
    """The gradient of ``qkv``, given those (q, k, v) of what ``split_rows`` makes of it."""
    share, rows, half = heads // kv, len(lengths), dim // 2
    token = 0
    for row in range(rows):
        for t in range(lengths[row]):
            at, angle = token * (heads + 2 * kv) * dim, (position + t) * half
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                to, w = at + head * dim, head * dim
                _turn_head_backward(qkv, to, dim, weight, w, normed, eps, cos, sin, angle, q, place, out, to)
            for head in range(kv):
                place = ((head * rows + row) * width + t) * dim
                to, w = at + (heads + head) * dim, (heads + head) * dim
                _turn_head_backward(qkv, to, dim, weight, w, normed, eps, cos, sin, angle, k, place, out, to)
                for i in range(0, dim, LANES):
                    store(out, to + kv * dim + i, load(v, place + i))
            token += 1


@compiled
def join_rows(mixed: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, out: Any) -> None:
    """The inverse of ``split_rows`` for queries: [kv, rows, heads / kv, width, dim] to rows [tokens, heads dim]."""
    share, rows = heads // kv, len(lengths)
    token = 0
    for row in range(rows):
        for t in range(lengths[row]):
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                for i in range(0, dim, LANES):
                    store(out, (token * heads + head) * dim + i, load(mixed, place + i))
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
def softmax(  # noqa: PLR0912 - two ranges of columns, three times
    shared: Any, wide: int, seen: int, own: Any, lengths: Any, repeats: int, share: int, width: int, scale: float
) -> None:
    """Softmax, in place, of each query's scores over what all see and what it sees of its own row.

    ``shared`` [queries, wide], of which ``seen`` columns are there (none if wide is 0); ``own`` [queries, width], of
    which query t of a row sees the columns up to its own. Queries are ordered [repeats, rows, share, width]; those
    beyond a row's length get zeros.
    """
    zero, nothing, by = splat(np.float32(0)), splat(NOTHING), splat(np.float32(scale))
    rows = len(lengths)
    for block in range(repeats * rows * share):
        length = lengths[block // share % rows]
        for t in range(width):
            a, b = (block * width + t) * wide, (block * width + t) * width
            if t >= length:
                for c in range(0, wide, LANES):
                    store(shared, a + c, zero)
                for c in range(0, width, LANES):
                    store(own, b + c, zero)
                continue
            last = t + 1
            top = nothing
            for c in range(0, seen, LANES):
                top = maximum(top, first(load(shared, a + c), seen - c, nothing))
            for c in range(0, last, LANES):
                top = maximum(top, first(load(own, b + c), last - c, nothing))
            highest = splat(largest(top) * np.float32(scale))
            sums = zero
            for c in range(0, seen, LANES):
                weight = first(exp(sub(mul(load(shared, a + c), by), highest)), seen - c, zero)
                store(shared, a + c, weight)
                sums = add(sums, weight)
            for c in range(0, last, LANES):
                weight = first(exp(sub(mul(load(own, b + c), by), highest)), last - c, zero)
                store(own, b + c, weight)
                sums = add(sums, weight)
            part = splat(np.float32(1) / total(sums))
            for c in range(0, seen, LANES):
                store(shared, a + c, mul(load(shared, a + c), part))
            for c in range(0, last, LANES):
                store(own, b + c, mul(load(own, b + c), part))
            for c in range((seen + LANES - 1) // LANES * LANES, wide, LANES):
                store(shared, a + c, zero)
            for c in range((last + LANES - 1) // LANES * LANES, width, LANES):
                store(own, b + c, zero)


@compiled
def softmax_backward(
    shared: Any, shared_gradient: Any, wide: int, own: Any, own_gradient: Any, width: int, rows: int, scale: float
) -> None:
    """Gradients of scores, in place of those of ``softmax``'s weights, ``shared`` [rows, wide] and ``own`` [rows,
    width]."""
    by = splat(np.float32(scale))
    for row in range(rows):
        a, b = row * wide, row * width
        along = splat(np.float32(0))
        for c in range(0, wide, LANES):
            along = fma(load(shared, a + c), load(shared_gradient, a + c), along)
        for c in range(0, width, LANES):
            along = fma(load(own, b + c), load(own_gradient, b + c), along)
        mean = splat(total(along))
        for c in range(0, wide, LANES):
            change = mul(load(shared, a + c), sub(load(shared_gradient, a + c), mean))
            store(shared_gradient, a + c, mul(change, by))
        for c in range(0, width, LANES):
            change = mul(load(own, b + c), sub(load(own_gradient, b + c), mean))
            store(own_gradient, b + c, mul(change, by))
