"""Machine code for the search of large banks: rotating, coding, scanning and rescoring keys.

Builds on numpy and numba (``pip install 'tacit[large]'``), which compiles these loops for the processor at hand the
first time that they are called and keeps the result on the disk. ``compressed`` says what the numbers mean. All loops
let other threads run meanwhile and none has threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

_LANES = 16  # rows that are coded side by side, one in each lane of a vector register
# Sums may be reordered, which vector registers need; their errors stay those of any float32 sum.
_REORDER = {"reassoc", "nsz", "contract"}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    jit: Callable[..., Any] = numba.njit
    options = {"nogil": True, "fastmath": _REORDER, "error_model": "numpy"}
    made: Callable[..., Any]
    try:
        made = jit(cache=True, **options)(function)
    except RuntimeError:  # no folder that could hold the compiled code
        made = jit(**options)(function)
    return made


def _ones(typing: Any, value: Any) -> Any:
    """Number of bits set in a uint64, one processor instruction."""
    return numba.uint64(numba.uint64), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


_count_ones: Any = intrinsic(_ones)


def _butterflies(rows: np.ndarray, start: int, length: int) -> None:
    """Walsh-Hadamard transform, orthonormal, of ``rows[start : start + length]`` in every lane."""
    half = 1
    while half < length:
        for block in range(start, start + length, 2 * half):
            for i in range(block, block + half):
                for lane in range(_LANES):
                    a = rows[i, lane]
                    b = rows[i + half, lane]
                    rows[i, lane] = a + b
                    rows[i + half, lane] = a - b
        half *= 2
    scale = np.float32(1.0 / np.sqrt(length))
    for i in range(start, start + length):
        for lane in range(_LANES):
            rows[i, lane] *= scale


_hadamard = _compiled(_butterflies)


def _rotate(rows: np.ndarray, signs: np.ndarray, power: int) -> None:
    """Turn each lane of ``rows`` [D, lanes] in place; ``signs`` [rounds, D] of +-1, ``power`` the largest 2^i <= D."""
    dim = rows.shape[0]
    for turn in range(signs.shape[0]):
        for i in range(dim):
            for lane in range(_LANES):
                rows[i, lane] *= signs[turn, i]
        # Where D is no power of two, odd turns mix the last 2^i values and even ones the first.
        _hadamard(rows, 0 if turn % 2 == 0 else dim - power, power)


_rotated = _compiled(_rotate)


def _rotate_queries(queries: np.ndarray, signs: np.ndarray, power: int) -> np.ndarray:
    """The rotation of each of ``queries`` (float32 [N, D])."""
    count, dim = queries.shape
    out = np.empty_like(queries)
    lanes = np.zeros((dim, _LANES), dtype=np.float32)
    for row in range(count):
        for i in range(dim):
            lanes[i, 0] = queries[row, i]
        _rotated(lanes, signs, power)
        for i in range(dim):
            out[row, i] = lanes[i, 0]
    return out


def _encode(
    keys: np.ndarray,
    centre: np.ndarray,
    signs: np.ndarray,
    power: int,
    bits: np.ndarray,
    small: np.ndarray,
    offset: np.ndarray,
    factor: np.ndarray,
    doubt: np.ndarray,
    scale: np.ndarray,
) -> None:
    """Code ``keys`` (float32 [n, D]) into ``bits`` (uint64 [n, W]), ``small`` (int8 [n, D]) and float32 [n] columns."""
    count, dim = keys.shape
    lanes = np.zeros((dim, _LANES), dtype=np.float32)
    along, squares, total, largest = np.zeros((4, _LANES), dtype=np.float32)
    code = np.zeros(_LANES, dtype=np.uint64)
    for first in range(0, count, _LANES):
        used = min(_LANES, count - first)
        along[:] = 0.0
        for i in range(dim):
            for lane in range(used):
                rest = keys[first + lane, i] - centre[i]
                lanes[i, lane] = rest
                along[lane] += rest * centre[i]
        _rotated(lanes, signs, power)
        squares[:] = 0.0
        total[:] = 0.0
        largest[:] = 0.0
        for i in range(dim):
            for lane in range(_LANES):
                size = abs(lanes[i, lane])
                squares[lane] += size * size
                total[lane] += size
                largest[lane] = max(largest[lane], size)
        for word in range(bits.shape[1]):
            code[:] = 0
            for i in range(64 * word, min(dim, 64 * word + 64)):
                one = np.uint64(1) << np.uint64(i - 64 * word)
                for lane in range(_LANES):
                    code[lane] |= one if lanes[i, lane] > 0.0 else np.uint64(0)
            bits[first : first + used, word] = code[:used]
        for lane in range(used):
            row = first + lane
            offset[row] = along[lane]
            if largest[lane] > 0.0:
                factor[row] = squares[lane] / total[lane]
                # 1 / cosine^2 - 1 of a key and its bits.
                lost = dim * squares[lane] / (total[lane] * total[lane]) - np.float32(1.0)
                doubt[row] = np.sqrt(squares[lane] * max(lost, np.float32(0.0)) / max(dim - 1, 1))
                scale[row] = largest[lane] / np.float32(127.0)
                inverse = np.float32(127.0) / largest[lane]
            else:
                factor[row] = doubt[row] = scale[row] = inverse = np.float32(0.0)
            for i in range(dim):
                small[row, i] = np.int8(np.rint(lanes[i, lane] * inverse))


def _scan(
    bits: np.ndarray,
    planes: np.ndarray,
    offset: np.ndarray,
    factor: np.ndarray,
    doubt: np.ndarray,
    allowed: np.ndarray,
    states: np.ndarray,
    dim: int,
    step: float,
    margin: float,
    out: np.ndarray,
) -> None:
    """``out`` [n]: estimated product plus ``margin`` times its doubt; -inf where the state is not allowed.

    ``planes`` (uint64 [4, W]) are the bits of a query of 4-bit numbers u that stand for step * (u - 7.5).
    """
    whole = np.float32(15.0 * dim)
    half = np.float32(0.5 * step)
    wide = np.float32(margin)
    for row in range(bits.shape[0]):
        differ = np.uint64(0)
        for word in range(bits.shape[1]):
            code = bits[row, word]
            differ += (
                _count_ones(code ^ planes[0, word])
                + (_count_ones(code ^ planes[1, word]) << np.uint64(1))
                + (_count_ones(code ^ planes[2, word]) << np.uint64(2))
                + (_count_ones(code ^ planes[3, word]) << np.uint64(3))
            )
        dot = half * (whole - np.float32(np.int64(2 * differ)))
        estimate = offset[row] + factor[row] * dot + wide * doubt[row]
        out[row] = estimate if allowed[states[row]] else np.float32(-np.inf)


def _rescore(
    small: np.ndarray,
    offset: np.ndarray,
    scale: np.ndarray,
    rows: np.ndarray,
    query: np.ndarray,
    out: np.ndarray,
) -> None:
    """``out`` [n]: products of the int8 codes at ``rows`` with the rotated ``query`` (float32 [D])."""
    for i in range(rows.shape[0]):
        row = rows[i]
        dot = np.float32(0.0)
        for j in range(small.shape[1]):
            dot += np.float32(small[row, j]) * query[j]
        out[i] = offset[row] + scale[row] * dot


def _top(values: np.ndarray, count: int) -> np.ndarray:
    """Rows of the ``count`` largest ``values`` (-inf never) in no order, by a heap: one pass that rarely writes."""
    heap = np.full(count, -np.inf, dtype=np.float32)
    rows = np.full(count, -1, dtype=np.int64)
    least = heap[0]
    for row in range(values.shape[0]):
        value = values[row]
        if value > least:
            hole = 0
            while True:
                child = 2 * hole + 1
                if child + 1 < count and heap[child + 1] < heap[child]:
                    child += 1
                if child >= count or heap[child] >= value:
                    break
                heap[hole], rows[hole] = heap[child], rows[child]
                hole = child
            heap[hole], rows[hole] = value, row
            least = heap[0]
    return rows[rows >= 0]


def _above(values: np.ndarray, cut: float) -> np.ndarray:
    """Rows, rising, whose value is at least ``cut`` and not -inf."""
    limit = np.float32(cut)
    count = 0
    for row in range(values.shape[0]):
        count += values[row] >= limit and values[row] > -np.inf
    rows = np.empty(count, dtype=np.int64)
    count = 0
    for row in range(values.shape[0]):
        if values[row] >= limit and values[row] > -np.inf:
            rows[count] = row
            count += 1
    return rows


rotate_queries = _compiled(_rotate_queries)
encode = _compiled(_encode)
scan = _compiled(_scan)
rescore = _compiled(_rescore)
top = _compiled(_top)
above = _compiled(_above)
