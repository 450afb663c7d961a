"""Machine code for the search of large banks: rotating, coding, scanning and rescoring keys.

Builds on fused.lanes and numba (the extra ``fast``). It compiles these loops for the processor at hand at their first
call, and keeps the result on the disk. ``compressed`` says what the numbers mean. All loops let other threads run
meanwhile and none has threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tacit.model.fused.lanes import compiled

_WORDS = 8  # of 64 bits in a register
_AHEAD = 128  # rows that a scan fetches in advance; without, it waits for memory half of its time
LANES = 16  # rows that are coded side by side, one in each lane of a vector register


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # The errors of reordered sums stay those of any float32 sum.
    made: Callable[..., Any] = compiled(function, reorder=True)
    return made


def _ones(typing: Any, value: Any) -> Any:
    """Number of bits set in a uint64, one processor instruction."""
    return numba.uint64(numba.uint64), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Has the processor fetch what lies at a flat index, which may be beyond the end; nothing waits for it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch: Any = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(fetch, [place, *(ir.Constant(number, value) for value in (0, 3, 1))])  # to read, keep, data

    return types.void(array, types.intp), code


def _differ(typing: Any, codes: Any, first: Any, planes: Any, words: Any) -> Any:
    """Sum over four planes p of 2^p times the bits in which they differ from a code; words in eights, one register."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, index = ir.IntType(64), ir.VectorType(ir.IntType(32), _WORDS)
        register = ir.VectorType(word, _WORDS)

        def load(place: int, at: Any) -> Any:
            data = context.make_array(signature.args[place])(context, builder, arguments[place]).data
            return builder.load(builder.bitcast(builder.gep(data, [at]), register.as_pointer()), align=8)

        kind = ir.FunctionType(register, [register])
        count: Any = cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.v8i64")  # type: ignore[no-untyped-call]
        held: Any = cgutils.alloca_once_value(builder, ir.Constant(register, [0] * _WORDS))  # type: ignore[no-untyped-call]
        zero, step = ir.Constant(word, 0), ir.Constant(word, _WORDS)
        with cgutils.for_range_slice(builder, zero, arguments[3], step) as (at, _):
            bits = load(0, builder.add(arguments[1], at))
            total = builder.load(held)
            for plane in range(4):
                place = builder.add(builder.mul(arguments[3], ir.Constant(word, plane)), at)
                ones = builder.call(count, [builder.xor(bits, load(2, place))])
                total = builder.add(total, builder.shl(ones, ir.Constant(register, [plane] * _WORDS)))
            builder.store(total, held)
        total = builder.load(held)
        for distance in (4, 2, 1):
            order = ir.Constant(index, [(lane + distance) % _WORDS for lane in range(_WORDS)])
            total = builder.add(total, builder.shuffle_vector(total, ir.Constant(register, ir.Undefined), order))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.intp(codes, types.intp, planes, types.intp), code


_count_ones: Any = intrinsic(_ones)
_fetch: Any = intrinsic(_prefetch)
_differing: Any = intrinsic(_differ)


def _butterflies(rows: np.ndarray, start: int, length: int) -> None:
    """Walsh-Hadamard transform, orthonormal, of ``rows[start : start + length]`` in every lane."""
    half = 1
    while half < length:
        for block in range(start, start + length, 2 * half):
            for i in range(block, block + half):
                for lane in range(LANES):
                    a = rows[i, lane]
                    b = rows[i + half, lane]
                    rows[i, lane] = a + b
                    rows[i + half, lane] = a - b
        half *= 2
    scale = np.float32(1.0 / np.sqrt(length))
    for i in range(start, start + length):
        for lane in range(LANES):
            rows[i, lane] *= scale


_hadamard = _compiled(_butterflies)


def _rotate(rows: np.ndarray, signs: np.ndarray, power: int) -> None:
    """Turn each lane of ``rows`` [D, lanes] in place; ``signs`` [rounds, D] of +-1, ``power`` the largest 2^i <= D."""
    dim = rows.shape[0]
    for turn in range(signs.shape[0]):
        for i in range(dim):
            for lane in range(LANES):
                rows[i, lane] *= signs[turn, i]
        # Where D is no power of two, odd turns mix the last 2^i values and even ones the first.
        _hadamard(rows, 0 if turn % 2 == 0 else dim - power, power)


rotate = _compiled(_rotate)


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
    lanes = np.zeros((dim, LANES), dtype=np.float32)
    along, squares, total, largest = np.zeros((4, LANES), dtype=np.float32)
    code = np.zeros(LANES, dtype=np.uint64)
    for first in range(0, count, LANES):
        used = min(LANES, count - first)
        along[:] = 0.0
        for i in range(dim):
            for lane in range(used):
                rest = keys[first + lane, i] - centre[i]
                lanes[i, lane] = rest
                along[lane] += rest * centre[i]
        rotate(lanes, signs, power)
        squares[:] = 0.0
        total[:] = 0.0
        largest[:] = 0.0
        for i in range(dim):
            for lane in range(LANES):
                size = abs(lanes[i, lane])
                squares[lane] += size * size
                total[lane] += size
                largest[lane] = max(largest[lane], size)
        for word in range(bits.shape[1]):
            code[:] = 0
            for i in range(64 * word, min(dim, 64 * word + 64)):
                one = np.uint64(1) << np.uint64(i - 64 * word)
                for lane in range(LANES):
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
    words = bits.shape[1]
    eights = words // _WORDS * _WORDS
    flat = bits.reshape(bits.size)
    front = planes[:, :eights].copy().reshape(4 * eights)
    for row in range(bits.shape[0]):
        for word in range(0, words, _WORDS):
            _fetch(flat, (row + _AHEAD) * words + word)
        differ = _differing(flat, row * words, front, eights)
        for word in range(eights, words):
            code = bits[row, word]
            for plane in range(4):
                differ += np.int64(_count_ones(code ^ planes[plane, word])) << plane
        dot = half * (whole - np.float32(2 * differ))
        estimate = offset[row] + factor[row] * dot + wide * doubt[row]
        out[row] = estimate if allowed[states[row]] else np.float32(-np.inf)


def _rescore(
    small: np.ndarray, offset: np.ndarray, scale: np.ndarray, rows: np.ndarray, query: np.ndarray, out: np.ndarray
) -> None:
    """``out`` [n]: products of the int8 codes at ``rows`` with the rotated ``query`` (float32 [D])."""
    dim = small.shape[1]
    flat = small.reshape(small.size)
    for i in range(rows.shape[0]):
        row = rows[i]
        later = rows[min(i + 4, rows.shape[0] - 1)]
        for line in range(0, dim, 64):
            _fetch(flat, later * dim + line)
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


encode = _compiled(_encode)
scan = _compiled(_scan)
rescore = _compiled(_rescore)
top = _compiled(_top)
