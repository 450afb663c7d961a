"""Whole forward passes as one compiled call each: a prompt through all layers, and one token of every row.

Builds on loops and lanes. One call leaves Python once, so other threads run meanwhile, and a small model does not wait
for calls. ``shape`` is (layers, width, query heads, key/value heads, head size, hidden size, vocabulary); ``weights``
holds the layers one behind the other, ``places`` says where in a layer each weight begins and, last, how long a layer
is (``model.Fused`` packs them). Products are PyTorch's own, at the address ``blas``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.model.fused.lanes import compiled, gemm
from tacit.model.fused.loops import (
    TILE,
    attend_tokens,
    join_rows,
    norm_rows,
    pack,
    silu_mul,
    softmax,
    split_rows,
    split_tokens,
)

ATTENTION_NORM, QKV, QKV_BIAS, HEAD_NORMS, OUT, OUT_BIAS, MLP_NORM, GATE_UP, DOWN, LAYER = range(10)
"""Indices into ``places``."""


@compiled
def spread(bias: Any, at: int, width: int, rows: int, out: Any) -> None:
    """A bias as the start of every row of a product."""
    for row in range(rows):
        for i in range(width):
            out[row * width + i] = bias[at + i]


@compiled
def mlp(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, at: int, rows: int, real: int, x: Any, normed: Any,
    gate_up: Any, active: Any,
) -> None:  # fmt: skip
    """x += down(silu(gate) * up) of the normed x; products of ``rows`` rows, of which ``real`` matter."""
    dim, hidden = shape[1], shape[5]
    one, none = np.float32(1), np.float32(0)
    up, down = at + places[GATE_UP], at + places[DOWN]
    norm_rows(x, real, dim, weights[at + places[MLP_NORM] :], eps, normed)
    gemm(
        blas, False, False, rows, 2 * hidden, dim, normed, 0, dim, weights, up, 2 * hidden, none, gate_up, 0,
        2 * hidden,
    )  # fmt: skip
    silu_mul(gate_up, real, hidden, active)
    gemm(blas, False, False, rows, dim, hidden, active, 0, hidden, weights, down, dim, one, x, 0, dim)


@compiled
def project(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, biased: Any, at: int, rows: int, real: int, x: Any,
    normed: Any, qkv: Any,
) -> None:  # fmt: skip
    """Queries, keys and values of the normed x, one projection."""
    dim, width = shape[1], (shape[2] + 2 * shape[3]) * shape[4]
    norm_rows(x, real, dim, weights[at + places[ATTENTION_NORM] :], eps, normed)
    if biased[0]:
        spread(weights, at + places[QKV_BIAS], width, rows, qkv)
    beta = np.float32(1 if biased[0] else 0)
    gemm(blas, False, False, rows, width, dim, normed, 0, dim, weights, at + places[QKV], width, beta, qkv, 0, width)


@compiled
def output(
    blas: int, shape: Any, places: Any, weights: Any, biased: Any, at: int, rows: int, mixed: Any, x: Any,
) -> None:  # fmt: skip
    """x += the output projection of what attention mixed."""
    dim, width = shape[1], shape[2] * shape[4]
    gemm(
        blas, False, False, rows, dim, width, mixed, 0, width, weights, at + places[OUT], dim, np.float32(1), x, 0,
        dim,
    )  # fmt: skip
    if biased[1]:
        for row in range(rows):
            for i in range(dim):
                x[row * dim + i] += weights[at + places[OUT_BIAS] + i]


@compiled
def step(
    blas: int, shape: Any, places: Any, weights: Any, norm: Any, head: Any, eps: float, normed_heads: bool, biased: Any,
    cos: Any, sin: Any, x: Any, rows: int, real: int, position: Any, prompts: Any, begin: Any, before: Any, own: Any,
    slot: Any, column: Any, tiles: int, logits: Any,
) -> None:  # fmt: skip
    """Logits of one new token of each of ``real`` rows; see ``Fused.step``. ``x`` [rows, width] is written over."""
    layers, dim, heads, kv, size, hidden, vocabulary = shape
    normed, mixed = np.zeros(rows * dim, np.float32), np.zeros(rows * heads * size, np.float32)
    qkv, query = np.empty(rows * (heads + 2 * kv) * size, np.float32), np.empty(rows * heads * size, np.float32)
    gate_up, active = np.empty(rows * 2 * hidden, np.float32), np.zeros(rows * hidden, np.float32)
    after = column + 1
    for layer in range(layers):
        at = layer * places[LAYER]
        project(blas, shape, places, weights, eps, biased, at, rows, real, x, normed, qkv)
        split_tokens(
            qkv, real, heads, kv, size, weights[at + places[HEAD_NORMS] :], normed_heads, eps, cos, sin, position,
            slot, column, tiles, query, own[layer],
        )  # fmt: skip
        attend_tokens(
            query, real, heads, kv, size, prompts[layer], begin, before, own[layer], slot, after, tiles, size**-0.5,
            mixed,
        )  # fmt: skip
        output(blas, shape, places, weights, biased, at, rows, mixed, x)
        mlp(blas, shape, places, weights, eps, at, rows, real, x, normed, gate_up, active)
    norm_rows(x, real, dim, norm, eps, normed)
    gemm(
        blas, False, False, rows, vocabulary, dim, normed, 0, dim, head, 0, vocabulary, np.float32(0), logits, 0,
        vocabulary,
    )  # fmt: skip


@compiled
def prompt(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, normed_heads: bool, biased: Any, cos: Any, sin: Any,
    x: Any, rows: int, count: int, past_keys: Any, past_values: Any, begun: int, packed: Any,
) -> None:  # fmt: skip
    """Keys and values of ``count`` tokens behind ``begun`` others, as tiles ``packed`` [layers, ...]; see
    ``Fused.prefill``. ``x`` [rows, width] is written over."""
    layers, dim, heads, kv, size, hidden, _ = shape
    columns = begun + count
    wide, high = (columns + TILE - 1) // TILE * TILE, max(1, (count + TILE - 1) // TILE) * TILE
    share = heads // kv
    lengths = np.full(1, count)
    normed, mixed = np.zeros(rows * dim, np.float32), np.zeros(rows * heads * size, np.float32)
    qkv = np.empty(rows * (heads + 2 * kv) * size, np.float32)
    gate_up, active = np.empty(rows * 2 * hidden, np.float32), np.zeros(rows * hidden, np.float32)
    query, scores = np.zeros(heads * high * size, np.float32), np.empty(heads * high * wide, np.float32)
    seen = np.empty(heads * high * size, np.float32)
    none = np.float32(0)
    for layer in range(layers):
        at = layer * places[LAYER]
        keys, values = np.zeros(kv * wide * size, np.float32), np.zeros(kv * wide * size, np.float32)
        for head in range(kv):
            source, target = (layer * kv + head) * begun * size, head * wide * size
            for i in range(begun * size):
                keys[target + i] = past_keys[source + i]
                values[target + i] = past_values[source + i]
        project(blas, shape, places, weights, eps, biased, at, rows, count, x, normed, qkv)
        split_rows(
            qkv, lengths, high, heads, kv, size, weights[at + places[HEAD_NORMS] :], normed_heads, eps, cos, sin,
            begun, query, keys, values, wide, begun,
        )  # fmt: skip
        pack(keys, values, kv, wide, columns, size, packed[layer], 0)
        if layer == layers - 1:
            return  # of the last layer nobody asks for more
        for head in range(kv):
            q, s = head * share * high * size, head * share * high * wide
            gemm(
                blas, False, True, share * high, wide, size, query, q, size, keys, head * wide * size, size, none,
                scores, s, wide,
            )  # fmt: skip
        softmax(scores, 0, 0, scores, lengths, kv, share, high, wide, begun, size**-0.5)
        for head in range(kv):
            q, s = head * share * high * size, head * share * high * wide
            gemm(
                blas, False, False, share * high, size, wide, scores, s, wide, values, head * wide * size, size,
                none, seen, q, size,
            )  # fmt: skip
        join_rows(seen, lengths, high, heads, kv, size, mixed)
        output(blas, shape, places, weights, biased, at, rows, mixed, x)
        mlp(blas, shape, places, weights, eps, at, rows, count, x, normed, gate_up, active)
