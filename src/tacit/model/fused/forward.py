"""Generating as compiled calls: a prompt through all layers, one token of every row, drawing it, and scoring tokens.

Builds on loops and lanes. One call leaves Python once, so other threads run meanwhile, and a small model does not wait
for calls. ``shape`` is (layers, width, query heads, key/value heads, head size, hidden size, vocabulary); ``weights``
holds the layers one behind the other. ``places`` says where in a layer each weight begins and, last, how long a layer
is (``model.Fused`` packs them). Products are PyTorch's own, at the address ``blas``.

Keys and values of tokens already read lie in tiles of 16 columns, one head's tiles side by side: 16 keys by dimension
(one register holds a dimension of 16 keys), then 16 values by column. A request's prompt is such a run of tiles, read
by all its rollouts; a rollout's own tokens are another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.model.fused.lanes import (
    LANES,
    add,
    compiled,
    exp,
    first,
    fma,
    gemm,
    largest,
    load,
    maximum,
    mul,
    splat,
    store,
    sub,
    total,
)
from tacit.model.fused.loops import NOTHING, join_rows, norm_rows, silu_mul, softmax, split_rows, turn_head

ATTENTION_NORM, QKV, QKV_BIAS, HEAD_NORMS, OUT, OUT_BIAS, MLP_NORM, GATE_UP, DOWN, LAYER = range(10)
"""Indices into ``places``."""

TILE = LANES


@compiled
def spread(bias: Any, at: int, width: int, rows: int, out: Any) -> None:
    """A bias as the start of every row of a product."""
    for row in range(rows):
        for i in range(width):
            out[row * width + i] = bias[at + i]


@compiled
def each(
    blas: int, count: int, turn_a: bool, turn_b: bool, m: int, n: int, k: int, a: Any, b: Any, beta: float, c: Any,
) -> None:  # fmt: skip
    """C = A B + beta C for ``count`` pairs of matrices, one behind the other."""
    a_row, b_row = m if turn_a else k, k if turn_b else n
    for i in range(count):
        gemm(blas, turn_a, turn_b, m, n, k, a, i * m * k, a_row, b, i * k * n, b_row, np.float32(beta), c, i * m * n, n)


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
def split_tokens(
    qkv: Any, rows: int, heads: int, kv: int, dim: int, weight: Any, normed: bool, eps: float, cos: Any, sin: Any,
    position: Any, slot: Any, column: Any, tiles: int, q: Any, own: Any,
) -> None:  # fmt: skip
    """Queries of one new token a row, and its key and value into the row's own tiles at its column."""
    width = (heads + 2 * kv) * dim
    half = dim // 2
    key = np.empty(dim, np.float32)
    for row in range(rows):
        at, angle = row * width, position[row] * half
        for head in range(heads):
            place = (row * heads + head) * dim
            turn_head(qkv, at + head * dim, dim, weight, head * dim, normed, eps, cos, sin, angle, q, place)
        tile, lane = column[row] // TILE, column[row] % TILE
        for head in range(kv):
            source = heads + head
            turn_head(qkv, at + source * dim, dim, weight, source * dim, normed, eps, cos, sin, angle, key, 0)
            place = ((slot[row] * kv + head) * tiles + tile) * 2 * TILE * dim
            for i in range(dim):
                own[place + i * TILE + lane] = key[i]
            place += TILE * dim + lane * dim
            value = at + (heads + kv + head) * dim
            for i in range(0, dim, LANES):
                store(own, place + i, load(qkv, value + i))


@compiled
def _scores_of_tile(q: Any, at: int, dim: int, tiles: Any, place: int, scale: Any, seen: int) -> Any:
    """Scores of one query with the 16 keys of a tile, of which ``seen`` are there."""
    even, odd = splat(np.float32(0)), splat(np.float32(0))
    for i in range(0, dim, 2):
        even = fma(splat(q[at + i]), load(tiles, place + i * TILE), even)
        odd = fma(splat(q[at + i + 1]), load(tiles, place + i * TILE + TILE), odd)
    return first(mul(add(even, odd), scale), seen, splat(NOTHING))


@compiled
def attend_tokens(
    q: Any, rows: int, heads: int, kv: int, dim: int, prompt: Any, begin: Any, before: Any, own: Any, slot: Any,
    after: Any, tiles: int, scale: float, out: Any,
) -> None:  # fmt: skip
    """Attention of one new token a row over its request's prompt and its own tokens.

    ``begin`` and ``before``: where the row's prompt begins in ``prompt``, and its columns; ``after``: columns of its
    own. Neighbouring rows of one request find their prompt in the processor's cache.
    """
    size = 2 * TILE * dim
    share = heads // kv
    zero, by = splat(np.float32(0)), splat(np.float32(scale))
    longest = 0
    for row in range(rows):
        longest = max(longest, before[row] + after[row])
    weights = np.empty(longest + 2 * TILE, np.float32)
    for row in range(rows):
        for head in range(heads):
            seen, drawn = before[row], after[row]
            count = (seen + TILE - 1) // TILE
            at = (row * heads + head) * dim
            shared = begin[row] + (head // share) * count * size
            mine = (slot[row] * kv + head // share) * tiles * size
            behind = count * TILE
            top = splat(NOTHING)
            for c in range(0, seen, TILE):
                score = _scores_of_tile(q, at, dim, prompt, shared + c // TILE * size, by, seen - c)
                store(weights, c, score)
                top = maximum(top, score)
            for c in range(0, drawn, TILE):
                score = _scores_of_tile(q, at, dim, own, mine + c // TILE * size, by, drawn - c)
                store(weights, behind + c, score)
                top = maximum(top, score)
            highest = splat(largest(top))
            sums = zero
            for c in range(0, behind + drawn, TILE):
                there = seen - c if c < behind else behind + drawn - c
                weight = first(exp(sub(load(weights, c), highest)), there, zero)
                store(weights, c, weight)
                sums = add(sums, weight)
            part = splat(np.float32(1) / total(sums))
            for i in range(0, dim, 2 * LANES):
                a, b, c, d = zero, zero, zero, zero
                for tile in range((behind + drawn + TILE - 1) // TILE):
                    at_weight = tile * TILE
                    if at_weight < behind:
                        place = shared + tile * size + TILE * dim + i
                        for lane in range(0, TILE, 2):
                            even, odd = splat(weights[at_weight + lane]), splat(weights[at_weight + lane + 1])
                            a, b = fma(even, load(prompt, place), a), fma(even, load(prompt, place + LANES), b)
                            place += dim
                            c, d = fma(odd, load(prompt, place), c), fma(odd, load(prompt, place + LANES), d)
                            place += dim
                    else:
                        place = mine + (at_weight - behind) // TILE * size + TILE * dim + i
                        for lane in range(0, TILE, 2):
                            even, odd = splat(weights[at_weight + lane]), splat(weights[at_weight + lane + 1])
                            a, b = fma(even, load(own, place), a), fma(even, load(own, place + LANES), b)
                            place += dim
                            c, d = fma(odd, load(own, place), c), fma(odd, load(own, place + LANES), d)
                            place += dim
                store(out, at + i, mul(add(a, c), part))
                store(out, at + i + LANES, mul(add(b, d), part))


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
def pack(keys: Any, values: Any, kv: int, columns: int, dim: int, tiles: Any) -> None:
    """Keys and values of ``columns`` columns [kv, whole tiles, dim] as tiles."""
    size = 2 * TILE * dim
    count = (columns + TILE - 1) // TILE
    for head in range(kv):
        for c in range(columns):
            place = (head * count + c // TILE) * size
            source = (head * count * TILE + c) * dim
            for i in range(dim):
                tiles[place + i * TILE + c % TILE] = keys[source + i]
                tiles[place + TILE * dim + c % TILE * dim + i] = values[source + i]


@compiled
def prompt(
    blas: int, shape: Any, places: Any, weights: Any, eps: float, normed_heads: bool, biased: Any, cos: Any, sin: Any,
    x: Any, rows: int, count: int, packed: Any,
) -> None:  # fmt: skip
    """Keys and values of ``count`` tokens, as tiles ``packed`` [layers, ...]; see ``Fused.prefill``. ``x`` [rows,
    width] is written over."""
    layers, dim, heads, kv, size, hidden, _ = shape
    wide = (count + TILE - 1) // TILE * TILE
    share = heads // kv
    lengths = np.full(1, count)
    normed, mixed = np.zeros(rows * dim, np.float32), np.zeros(rows * heads * size, np.float32)
    qkv = np.empty(rows * (heads + 2 * kv) * size, np.float32)
    gate_up, active = np.empty(rows * 2 * hidden, np.float32), np.zeros(rows * hidden, np.float32)
    query, scores = np.zeros(heads * wide * size, np.float32), np.empty(heads * wide * wide, np.float32)
    seen = np.empty(heads * wide * size, np.float32)
    for layer in range(layers):
        at = layer * places[LAYER]
        keys, values = np.zeros(kv * wide * size, np.float32), np.zeros(kv * wide * size, np.float32)
        project(blas, shape, places, weights, eps, biased, at, rows, count, x, normed, qkv)
        split_rows(
            qkv, lengths, wide, heads, kv, size, weights[at + places[HEAD_NORMS] :], normed_heads, eps, cos, sin, 0,
            query, keys, values,
        )  # fmt: skip
        pack(keys, values, kv, count, size, packed[layer])
        if layer == layers - 1:
            return  # of the last layer nobody asks for more
        each(blas, kv, False, True, share * wide, wide, size, query, keys, 0.0, scores)
        softmax(scores, 0, 0, scores, lengths, kv, share, wide, size**-0.5)
        each(blas, kv, False, False, share * wide, size, wide, scores, values, 0.0, seen)
        join_rows(seen, lengths, wide, heads, kv, size, mixed)
        output(blas, shape, places, weights, biased, at, rows, mixed, x)
        mlp(blas, shape, places, weights, eps, at, rows, count, x, normed, gate_up, active)


@compiled
def draw_rows(
    logits: Any, rows: int, vocabulary: int, temperature: Any, uniform: Any, tokens: Any, logprobs: Any
) -> None:
    """A token a row by inverting the cumulative distribution at ``uniform`` (the likeliest at temperature 0), and its
    natural-log probability (at temperature 0: at 1)."""
    nothing, zero = splat(NOTHING), splat(np.float32(0))
    weights = np.empty(vocabulary + LANES, np.float32)
    for row in range(rows):
        at = row * vocabulary
        for c in range(vocabulary):
            weights[c] = logits[at + c]
        top = nothing
        for c in range(0, vocabulary, LANES):
            top = maximum(top, first(load(weights, c), vocabulary - c, nothing))
        highest = largest(top)
        greedy = temperature[row] == 0
        by = splat(np.float32(1) if greedy else np.float32(1) / temperature[row])
        sums = zero
        for c in range(0, vocabulary, LANES):
            weight = first(exp(mul(sub(load(weights, c), splat(highest)), by)), vocabulary - c, zero)
            store(weights, c, weight)
            sums = add(sums, weight)
        whole = total(sums)
        token = vocabulary - 1
        if greedy:
            for c in range(vocabulary):
                if logits[at + c] == highest:
                    token = c
                    break
        else:
            reached, target = 0.0, uniform[row] * whole
            for c in range(vocabulary):
                reached += weights[c]
                if reached > target:
                    token = c
                    break
        tokens[row] = token
        distance = logits[at + token] - highest
        if not greedy:
            distance /= temperature[row]
        logprobs[row] = distance - np.log(whole)


@compiled
def score_rows(
    logits: Any, rows: int, vocabulary: int, temperature: float, targets: Any, sloped: bool, logprobs: Any
) -> None:
    """Natural-log probabilities of a target a row; if ``sloped``, each one's gradient in place of its logits."""
    nothing, zero, by = splat(NOTHING), splat(np.float32(0)), np.float32(1 / temperature)
    even = vocabulary // LANES * LANES
    for row in range(rows):
        at = row * vocabulary
        top, sums, rest = nothing, zero, np.float32(0)
        for c in range(at, at + even, LANES):
            top = maximum(top, load(logits, c))
        highest = largest(top)
        for c in range(at + even, at + vocabulary):
            highest = max(highest, logits[c])
        distance = (logits[at + targets[row]] - highest) * by
        for c in range(at, at + even, LANES):
            weight = exp(mul(sub(load(logits, c), splat(highest)), splat(by)))
            store(logits, c, weight)
            sums = add(sums, weight)
        for c in range(at + even, at + vocabulary):
            logits[c] = np.exp((logits[c] - highest) * by)
            rest += logits[c]
        whole = total(sums) + rest
        logprobs[row] = distance - np.log(whole)
        if sloped:  # d log p_y / d logits = (onehot(y) - p) / temperature
            back = -by / whole
            for c in range(at, at + even, LANES):
                store(logits, c, mul(load(logits, c), splat(back)))
            for c in range(at + even, at + vocabulary):
                logits[c] *= back
            logits[at + targets[row]] += by
