"""Compiled loops of the forward pass between its matrix products: norms, rotations, attention, drawing.

Builds on lanes. All arrays are flat, contiguous float32 (counts and places int64). Each row is computed by itself, in
an order that depends on its own length alone, so that it has the same bits in any batch.

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

TILE = LANES
_NOTHING = np.float32(-1e30)  # the score of a column that is not there; exp of it is 0 beside any other


@compiled
def per_rms(x: Any, at: int, width: int, eps: float) -> Any:
    """1 / rms of the ``width`` values from x[at] on."""
    squares = splat(np.float32(0))
    for i in range(0, width, LANES):
        value = load(x, at + i)
        squares = fma(value, value, squares)
    return np.float32(1 / np.sqrt(total(squares) / np.float32(width) + np.float32(eps)))


@compiled
def norm_rows(x: Any, rows: int, width: int, weight: Any, eps: float, out: Any) -> None:
    """out = x / rms(x) * weight, for each of ``rows`` rows."""
    for row in range(rows):
        at = row * width
        scale = splat(per_rms(x, at, width, eps))
        for i in range(0, width, LANES):
            store(out, at + i, mul(mul(load(x, at + i), scale), load(weight, i)))


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
def _turn_head(
    x: Any, at: int, dim: int, weight: Any, w: int, normed: bool, eps: float, cos: Any, sin: Any, c: int, out: Any,
    o: int,
) -> None:  # fmt: skip
    """One head: normed (weights from ``w`` on) and rotated (angles from ``c`` on), from x[at:] to out[o:]."""
    half = dim // 2
    scale = splat(per_rms(x, at, dim, eps) if normed else np.float32(1))
    for i in range(0, half, LANES):
        low, high = load(x, at + i), load(x, at + half + i)
        if normed:
            low = mul(mul(low, scale), load(weight, w + i))
            high = mul(mul(high, scale), load(weight, w + half + i))
        cosine, sine = load(cos, c + i), load(sin, c + i)
        store(out, o + i, sub(mul(low, cosine), mul(high, sine)))
        store(out, o + half + i, fma(high, cosine, mul(low, sine)))


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
            _turn_head(
                qkv,
                at + head * dim,
                dim,
                weight,
                head * dim,
                normed,
                eps,
                cos,
                sin,
                angle,
                q,
                (row * heads + head) * dim,
            )
        tile, lane = column[row] // TILE, column[row] % TILE
        for head in range(kv):
            source = heads + head
            _turn_head(qkv, at + source * dim, dim, weight, source * dim, normed, eps, cos, sin, angle, key, 0)
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
    return first(mul(add(even, odd), scale), seen, splat(_NOTHING))


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
            top = splat(_NOTHING)
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
def pack(keys: Any, values: Any, kv: int, capacity: int, columns: int, dim: int, tiles: Any, begin: int) -> None:
    """Keys and values [kv, capacity, dim], of which ``columns`` are there, as tiles from ``begin`` on."""
    size = 2 * TILE * dim
    count = (columns + TILE - 1) // TILE
    for head in range(kv):
        for c in range(columns):
            place = begin + (head * count + c // TILE) * size
            source = (head * capacity + c) * dim
            for i in range(dim):
                tiles[place + i * TILE + c % TILE] = keys[source + i]
                tiles[place + TILE * dim + c % TILE * dim + i] = values[source + i]


@compiled
def split_rows(
    qkv: Any, lengths: Any, width: int, heads: int, kv: int, dim: int, weight: Any, normed: bool, eps: float, cos: Any,
    sin: Any, position: int, q: Any, k: Any, v: Any, capacity: int, offset: int,
) -> None:  # fmt: skip
    """Ragged sequences, one after another in ``qkv``, into rows of ``width``: queries [kv, rows, heads / kv, width,
    dim], and keys and values [kv, rows, capacity, dim] from column ``offset`` on. Each starts at ``position``."""
    share, rows, half = heads // kv, len(lengths), dim // 2
    token = 0
    for row in range(rows):
        for t in range(lengths[row]):
            at, angle = token * (heads + 2 * kv) * dim, (position + t) * half
            for head in range(heads):
                place = (((head // share * rows + row) * share + head % share) * width + t) * dim
                _turn_head(qkv, at + head * dim, dim, weight, head * dim, normed, eps, cos, sin, angle, q, place)
            for head in range(kv):
                source = heads + head
                place = ((head * rows + row) * capacity + offset + t) * dim
                _turn_head(qkv, at + source * dim, dim, weight, source * dim, normed, eps, cos, sin, angle, k, place)
                for i in range(0, dim, LANES):
                    store(v, place + i, load(qkv, at + (heads + kv + head) * dim + i))
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
def softmax(  # noqa: PLR0912 - two ranges of columns, three times
    shared: Any, wide: int, seen: int, own: Any, lengths: Any, repeats: int, share: int, width: int, capacity: int,
    offset: int, scale: float,
) -> None:  # fmt: skip
    """Softmax, in place, of the scores of each query over what all see and what it sees of its own row.

    ``shared`` [queries, wide], of which ``seen`` columns are there (none if wide is 0); ``own`` [queries, capacity], of
    which query t of a row sees the columns up to offset + t. Queries are ordered [repeats, rows, share, width]; those
    beyond a row's length get zeros.
    """
    zero, nothing, by = splat(np.float32(0)), splat(_NOTHING), splat(np.float32(scale))
    rows = len(lengths)
    for block in range(repeats * rows * share):
        length = lengths[block // share % rows]
        for t in range(width):
            a, b = (block * width + t) * wide, (block * width + t) * capacity
            if t >= length:
                for c in range(0, wide, LANES):
                    store(shared, a + c, zero)
                for c in range(0, capacity, LANES):
                    store(own, b + c, zero)
                continue
            last = offset + t + 1
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
            for c in range((last + LANES - 1) // LANES * LANES, capacity, LANES):
                store(own, b + c, zero)


@compiled
def draw_rows(
    logits: Any, rows: int, vocabulary: int, temperature: Any, uniform: Any, tokens: Any, logprobs: Any
) -> None:
    """A token a row by inverting the cumulative distribution at ``uniform`` (the likeliest at temperature 0), and its
    natural-log probability (at temperature 0: at 1)."""
    nothing, zero = splat(_NOTHING), splat(np.float32(0))
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
