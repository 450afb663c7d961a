"""Nearest keys among a million: a cascade of codes in memory, then the stored keys themselves.

Builds on index (the bookkeeping of rows) and, when numba is installed, on kernels. Where the exact scan has to read
4 D bytes a memory, this one reads D / 8. A ``CompressedMatrix`` holds no keys but, of each key's difference from the
mean key, turned by a fixed random rotation:

1. One bit a dimension, the sign. The product with a query, of which 4 bits a dimension are kept, estimates the cosine
   (the RaBitQ estimator). The row's own numbers say how far off that may be. All rows are scanned.
2. One byte a dimension, for every row whose estimate is within ``_BIT_MARGIN`` standard errors of the k-th best.
3. The keys in the database, for every row whose second estimate is within ``_BYTE_MARGIN`` standard errors of the k-th
   best (at most ``_KEPT``, or 8 k): cosines in float64, by the same formula as in the exact search.

So the number of candidates follows from the data and the query. What is returned are real memories of an allowed state
with their exact cosine, in the right order. What may happen is that one of the best k is missing: because its error in
stage 1 was larger than the margin; or because a byte a dimension cannot tell more than ``_KEPT`` like keys apart. Rows
cost D + D / 8 + 25 bytes; ids are read from the database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tacit.bank.search.index import Helpers, KeyMatrix, View, cosines_of, share

if TYPE_CHECKING:
    from types import ModuleType

EXACT_ROWS = 250_000
"""Matrices of more rows than this are compressed by default, where numba is installed."""

_ROWS = 1 << 16  # of a segment
_CHUNK = 1 << 13  # rows that a thread scans at a time
_BIT_MARGIN = 2.75
_BYTE_MARGIN = 4.0
_KEPT = 1024
_PILOTS = 64
_LEAST = float(np.finfo(np.float32).min)  # more than -inf, which rows have that are not allowed
_FLOAT_ERROR = 1e-5  # of float32 sums, generously

ReadKeys = Callable[[np.ndarray], np.ndarray]
"""Positions -> the stored keys, float32 [n, D], in that order."""


@cache
def available() -> bool:
    """Whether what compiles the kernels is installed, and works with the numpy that is there."""
    try:
        _kernels()
    except ImportError:
        return False
    return True


@cache
def _kernels() -> ModuleType:
    from tacit.bank.search import kernels  # half a second, which small banks need not spend

    return kernels


@dataclass(frozen=True)
class Codes:
    """A segment of coded rows: ``bits`` uint64 [n, W], ``small`` int8 [n, D], the others float32 [n]."""

    bits: np.ndarray
    small: np.ndarray
    offset: np.ndarray
    factor: np.ndarray
    doubt: np.ndarray
    scale: np.ndarray

    @classmethod
    def empty(cls, rows: int, dim: int) -> Codes:
        """Room for ``rows``."""
        numbers = (np.empty(rows, dtype=np.float32) for _ in range(4))
        return cls(np.empty((rows, -(-dim // 64)), np.uint64), np.empty((rows, dim), np.int8), *numbers)

    def part(self, start: int, stop: int) -> Codes:
        """A window on some of the rows."""
        return Codes(*(getattr(self, name)[start:stop] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Rotation:
    """How keys are turned before coding: ``centre`` float32 [D] is taken off, signs and Hadamard transforms follow."""

    centre: np.ndarray
    signs: np.ndarray
    power: int

    @classmethod
    def about(cls, centre: np.ndarray) -> Rotation:
        """The one fixed rotation of that many dimensions, about ``centre``."""
        dim = len(centre)
        power = 1 << (dim.bit_length() - 1)
        turns = 2 if power == dim else 4
        signs = np.random.default_rng(dim).choice(np.array([-1.0, 1.0], dtype=np.float32), size=(turns, dim))
        return cls(centre.astype(np.float32), signs, power)


@dataclass(frozen=True)
class CompressedView(View):
    """``View`` of a compressed matrix; its ``segments`` and ids are empty.

    Attributes:
        codes: the rows in order.
        positions: of each row in the database (may be longer than ``rows``).
        rotation: what the codes are codes of.
    """

    codes: tuple[Codes, ...]
    positions: Sequence[int]
    rotation: Rotation


class CompressedMatrix(KeyMatrix):
    """A ``KeyMatrix`` that keeps codes instead of keys, and no ids. Never empty: it is made of an exact one."""

    named = False

    def __init__(self, exact: KeyMatrix) -> None:
        """Take over the rows of ``exact``, which must not be used any more."""
        super().__init__(exact.dim)
        view = exact.view()
        self._positions, self._states = exact._positions, exact._states
        total = np.zeros(self.dim)
        parts = [segment[: max(0, view.rows - first)] for first, segment in numbered(view.segments)]
        for part in parts:
            total += part.sum(axis=0, dtype=np.float64)
        self._rotation = Rotation.about(total / view.rows)
        self._codes: list[Codes] = []
        for part in parts:
            self._store(part)

    @classmethod
    def of(cls, rotation: Rotation, codes: Codes, positions: np.ndarray, states: np.ndarray) -> CompressedMatrix:
        """That of codes made before."""
        made = cls.__new__(cls)
        KeyMatrix.__init__(made, len(rotation.centre))
        made._positions.frombytes(positions.tobytes())
        made._states, made._rotation, made._codes = states.copy(), rotation, [codes]
        return made

    def view(self) -> CompressedView:
        """What a search may read without a lock."""
        rows = len(self._positions)
        return CompressedView(rows, self._states, (), (), (), tuple(self._codes), self._positions, self._rotation)

    def _store(self, keys: np.ndarray) -> None:
        done = 0
        while done < len(keys):
            if not self._free:
                self._codes.append(Codes.empty(_ROWS, self.dim))
                self._free = _ROWS
            start = _ROWS - self._free
            take = min(self._free, len(keys) - done)
            codes, turn = self._codes[-1].part(start, start + take), self._rotation
            _kernels().encode(
                np.ascontiguousarray(keys[done : done + take]), turn.centre, turn.signs, turn.power,
                codes.bits, codes.small, codes.offset, codes.factor, codes.doubt, codes.scale,
            )  # fmt: skip
            self._free -= take
            done += take


def nearly_nearest(
    view: CompressedView,
    queries: np.ndarray,
    *,
    k: int,
    floor: float,
    codes: Sequence[int],
    helpers: Helpers | None,
    read: ReadKeys,
) -> list[list[tuple[int, float]]]:
    """``index.nearest`` by the cascade: nearly always the same, see above."""
    allowed = np.zeros(256, dtype=np.bool_)
    allowed[list(codes)] = True
    return [_search(view, query, k, floor, allowed, helpers, read) for query in queries]


def _search(
    view: CompressedView,
    query: np.ndarray,
    k: int,
    floor: float,
    allowed: np.ndarray,
    helpers: Helpers | None,
    read: ReadKeys,
) -> list[tuple[int, float]]:
    # cosine = centre . query + (centre . rest of the key) + (rest of the key . rest of the query); the first is the
    # same for all rows and is left out, the second is their ``offset``, the third is what the codes estimate.
    turn, lanes = view.rotation, np.zeros((len(query), _kernels().LANES), dtype=np.float32)
    lanes[:, 0] = query - turn.centre
    _kernels().rotate(lanes, turn.signs, turn.power)
    turned = lanes[:, 0].copy()
    constant = float(turn.centre.astype(np.float64) @ query)
    length = float(np.sqrt((turned.astype(np.float64) ** 2).sum()))
    least = floor - constant - _FLOAT_ERROR
    uppers = _estimates(view, turned, length * _BIT_MARGIN, allowed, helpers)

    pilots = np.sort(_kernels().top(uppers, max(_PILOTS, 2 * k)))
    if not len(pilots):
        return []
    products, errors = _products(view, pilots, turned, length, helpers)
    rows = np.flatnonzero(uppers >= np.float32(max(least, _kth(products - errors, k), _LEAST)))
    products, errors = _products(view, rows, turned, length, helpers)
    near = np.flatnonzero(products + errors >= max(least, _kth(products - errors, k)))
    most = max(_KEPT, 8 * k)
    if len(near) > most:
        near = np.sort(near[np.lexsort((near, -products[near]))[:most]])
    rows = rows[near]
    if not len(rows):
        return []

    cosines = cosines_of(read(np.array([view.positions[int(row)] for row in rows], dtype=np.int64)), query)
    order = np.lexsort((rows, -cosines))[:k]
    return [(int(rows[i]), float(cosines[i])) for i in order if cosines[i] >= floor]


def _kth(values: np.ndarray, k: int) -> float:
    """The k-th largest, -inf where there are fewer; a hair lower, for rounding."""
    if len(values) < k:
        return -np.inf
    return float(np.partition(values, len(values) - k)[len(values) - k]) - _FLOAT_ERROR


def _estimates(
    view: CompressedView, turned: np.ndarray, margin: float, allowed: np.ndarray, helpers: Helpers | None
) -> np.ndarray:
    """float32 [rows]: stage 1's estimate of each row's product and ``margin`` times its doubt on top of that."""
    dim = len(turned)
    step = max(float(np.abs(turned).max()) / 7.5, 1e-30)
    levels = np.clip(np.rint(turned / step + 7.5), 0, 15).astype(np.uint8)
    bits = np.zeros((4, 64 * -(-dim // 64)), dtype=np.uint8)
    bits[:, :dim] = (levels >> np.arange(4, dtype=np.uint8)[:, None]) & 1
    planes = np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    out = np.empty(view.rows, dtype=np.float32)
    scan = _kernels().scan

    def work(codes: Codes, first: int, last: int) -> None:
        scan(
            codes.bits, planes, codes.offset, codes.factor, codes.doubt, allowed, view.states[first:last], dim, step,
            margin, out[first:last],
        )  # fmt: skip

    tasks = []
    for first, codes in numbered(view.codes):
        used = min(len(codes.bits), view.rows - first)
        for start in range(0, used, _CHUNK):
            stop = min(used, start + _CHUNK)
            tasks.append(partial(work, codes.part(start, stop), first + start, first + stop))
    share(tasks, helpers)
    return out


def _products(
    view: CompressedView, rows: np.ndarray, turned: np.ndarray, length: float, helpers: Helpers | None
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n] each: stage 2's estimates of the products at ``rows`` (rising), and how far off they may be."""
    out = np.empty(len(rows), dtype=np.float32)
    errors = np.empty(len(rows), dtype=np.float32)
    rescore = _kernels().rescore

    def work(codes: Codes, first: int, low: int, high: int) -> None:
        here = rows[low:high] - first
        rescore(codes.small, codes.offset, codes.scale, here, turned, out[low:high])
        # Rounding to steps of ``scale`` errs by scale / sqrt(12) a dimension.
        errors[low:high] = codes.scale[here] * np.float32(_BYTE_MARGIN * length / np.sqrt(12.0))

    tasks = []
    for first, codes in numbered(view.codes):
        low, high = np.searchsorted(rows, (first, first + len(codes.bits)))
        for start in range(low, high, _CHUNK // 8):
            tasks.append(partial(work, codes, first, start, min(high, start + _CHUNK // 8)))
    share(tasks, helpers if len(rows) > _CHUNK // 4 else None)
    return out, errors


def numbered(segments: Sequence[Any]) -> list[tuple[int, Any]]:
    """(number of its first row, segment) for each."""
    made, first = [], 0
    for segment in segments:
        made.append((first, segment))
        first += len(segment.bits if isinstance(segment, Codes) else segment)
    return made
