"""Exact nearest keys in memory: the matrix that search scans, and the proof that what it returns is exact.

Builds on numpy. A bank keeps one ``KeyMatrix`` per group of comparable keys and brings it up to date from the
database. A search runs in two stages. The scan computes every dot product in float32, where each result is within
``scan_error(D)`` of the true cosine; whatever could be among the best k under that bound is then computed again in
float64. So the answer is the exact one, ties included, although the scan's last bits depend on how it was blocked.

A scan of one query is bound by memory bandwidth, which two threads use better than one; see ``_BLAS_IS_SINGLE`` for
whose threads.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from tacit.memory import UNIT_TOLERANCE

Group = tuple[str, str, int]
"""What is comparable: namespace, key kind, dimension."""

DELETED, DAMAGED = 255, 254
"""State codes of rows that no search admits: of memories that are gone, and of damaged keys, which stay so."""

_FIRST_ROWS = 256
_SEGMENT_BYTES = 64 << 20
_CHUNK_BYTES = 2 << 20
_SHARED_BYTES = 64 << 20  # below this a scan is over before a second thread is of use
_RESCORE_BYTES = 32 << 20
_QUERY_BLOCK = 32

# Where BLAS has one thread, a matrix-vector product is the fastest scan by 10 to 25 %, shared with the bank's helpers.
# Where BLAS has several, helpers that call it stand in each other's way (measured: twice as slow as without), so a
# large scan is left to BLAS alone, and a small one, for which waking BLAS's threads costs more than it brings on a busy
# machine (12 ms against 3 ms), is done by dot products too short for threads.
_LIMITS = (os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"))
_BLAS_IS_SINGLE = next((limit for limit in _LIMITS if limit), "") == "1"


def scan_error(dim: int) -> float:
    """Bound on |float32 dot product - cosine| for keys of ``dim`` values whose norm is 1 within UNIT_TOLERANCE.

    Summing n products in float32 in any order errs by at most n u / (1 - n u) |x| |q| with u = 2^-24; rounding the
    query adds u, the key's norm UNIT_TOLERANCE. The factor covers second-order terms.
    """
    n_u = (dim + 2) * 2.0**-24
    return 1.01 * (n_u / (1.0 - n_u) + UNIT_TOLERANCE) + 1e-7 if n_u < 0.5 else 2.0


@dataclass(frozen=True)
class View:
    """The matrix as of one revision. Rows are only ever appended, so a view stays right while newer ones are made.

    Attributes:
        rows: number of keys.
        states: uint8 [rows], the state code of each.
        segments: float32 [capacity, D] blocks that hold the rows in order.
        ids, problem_ids: of each row (may be longer than ``rows``).
    """

    rows: int
    states: np.ndarray
    segments: tuple[np.ndarray, ...]
    ids: Sequence[str]
    problem_ids: Sequence[str]


class KeyMatrix:
    """Keys of one group in the order of storing. Not thread-safe: its owner locks; the views it hands out are."""

    named = True  # it keeps ids too

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._positions = array("q")
        self._ids: list[str] = []
        self._problem_ids: list[str] = []
        self._states = np.empty(0, dtype=np.uint8)
        self._segments: list[np.ndarray] = []
        self._free = 0  # unused rows in the last segment

    @property
    def last(self) -> int:
        """Position of the newest memory held, 0 for none."""
        return self._positions[-1] if self._positions else 0

    @property
    def rows(self) -> int:
        """Number of rows held, deleted ones included."""
        return len(self._positions)

    def view(self) -> View:
        """What a search may read without a lock."""
        return View(len(self._positions), self._states, tuple(self._segments), self._ids, self._problem_ids)

    def append(
        self,
        positions: Sequence[int],
        ids: Sequence[str],
        problem_ids: Sequence[str],
        states: Sequence[int],
        keys: np.ndarray,
    ) -> None:
        """Add rows, ``keys`` float32 [n, D], whose positions are above ``last`` and rising."""
        self._store(keys)
        self._positions.extend(positions)
        if self.named:
            self._ids.extend(ids)
            self._problem_ids.extend(problem_ids)
        self._states = np.concatenate([self._states, np.asarray(states, dtype=np.uint8)])

    def _store(self, keys: np.ndarray) -> None:
        done = 0
        while done < len(keys):
            if not self._free:
                self._grow(len(keys) - done)
            segment = self._segments[-1]
            start = len(segment) - self._free
            take = min(self._free, len(keys) - done)
            segment[start : start + take] = keys[done : done + take]
            self._free -= take
            done += take

    def change(self, states: Iterable[tuple[int, int]]) -> None:
        """Set the state codes of (position, code) pairs; positions not held are passed over."""
        fresh = self._states.copy()  # views keep the old array, so no search sees half of a transaction
        for position, code in states:
            row = bisect_left(self._positions, position)
            if row < len(self._positions) and self._positions[row] == position and fresh[row] != DAMAGED:
                fresh[row] = code
        self._states = fresh

    def mostly_deleted(self) -> bool:
        """Whether loading anew would free more than half of the rows (and enough of them to matter)."""
        dead = int(np.count_nonzero(self._states == DELETED))
        return dead > 1024 and dead * 2 > len(self._positions)

    def _grow(self, wanted: int) -> None:
        most = max(1, _SEGMENT_BYTES // (4 * self.dim))
        # Doubling the whole, in segments that stay where they are: growing copies nothing.
        rows = min(most, max(_FIRST_ROWS, wanted, sum(len(s) for s in self._segments)))
        self._segments.append(np.empty((rows, self.dim), dtype=np.float32))
        self._free = rows


class Helpers:
    """Threads that share the scan of one query with the thread that asks. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="tacit-bank-search")

    def start(self, work: Callable[[], None]) -> None:
        """Have every helper do ``work`` as well; none does when they have been stopped meanwhile."""
        with suppress(RuntimeError):
            for _ in range(self._count):
                self._pool.submit(work)

    def stop(self) -> None:
        """End the threads when they have done what they are at."""
        self._pool.shutdown()


def share(tasks: Sequence[Callable[[], None]], helpers: Helpers | None) -> None:
    """Do all ``tasks``, in any order and some of them perhaps twice, together with the ``helpers``."""
    left = list(range(len(tasks)))
    done = [False] * len(tasks)

    def work() -> None:
        with suppress(IndexError):  # of an empty ``left``: all taken
            while True:
                i = left.pop()
                tasks[i]()
                done[i] = True

    # The caller works too and waits for no one: a part that a helper took and has not finished (it may have lost its
    # core to another process) is simply done again. So on a busy machine a search is no slower than on one thread.
    if helpers is not None:
        helpers.start(work)
    work()
    for i, task in enumerate(tasks):
        if not done[i]:
            task()


def nearest(
    view: View, queries: np.ndarray, *, k: int, floor: float, codes: Sequence[int], helpers: Helpers | None
) -> list[list[tuple[int, float]]]:
    """For each of ``queries`` (float64 [N, D], norm 1) the exact best ``k`` rows as (row, cosine).

    Best first, equal ones by row; only rows whose state is in ``codes`` and whose cosine is at least ``floor``.
    """
    table = np.zeros(256, dtype=bool)
    table[list(codes)] = True
    banned = ~table[view.states]
    results: list[list[tuple[int, float]]] = []
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = queries[start : start + _QUERY_BLOCK]
        scores = _scan(view, block.astype(np.float32), helpers)
        scores[:, banned] = -np.inf
        results += [_best(view, query, row, k, floor) for query, row in zip(block, scores, strict=True)]
    return results


def _scan(view: View, queries: np.ndarray, helpers: Helpers | None) -> np.ndarray:
    """float32 [N, rows] dot products, each within ``scan_error`` of the cosine."""
    dim = queries.shape[1]
    shared = helpers is not None and view.rows * dim * 4 >= _SHARED_BYTES
    if len(queries) == 1 and shared and not _BLAS_IS_SINGLE:
        return np.concatenate([part @ queries[0] for part in _parts(view, _SEGMENT_BYTES)])[None]
    parts = _parts(view, _CHUNK_BYTES)
    # Several queries at once are bound by arithmetic: there BLAS, and its own threads, are the better tool.
    if len(queries) > 1:
        return np.concatenate([queries @ part.T for part in parts], axis=1)

    scores: list[np.ndarray] = [np.empty(0, np.float32)] * len(parts)

    def work(i: int) -> None:
        scores[i] = _dots(parts[i], queries[0])

    share([partial(work, i) for i in range(len(parts))], helpers if shared else None)
    return np.concatenate(scores)[None]


def _parts(view: View, most: int) -> list[np.ndarray]:
    """The rows in order, as blocks of at most ``most`` bytes (but at least one row)."""
    parts: list[np.ndarray] = []
    left = view.rows
    for segment in view.segments:
        used = segment[:left]
        rows = max(1, most // (4 * segment.shape[1]))
        parts += [used[start : start + rows] for start in range(0, len(used), rows)]
        left -= len(used)
    return parts


def _dots(part: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float32 [rows] dot products of ``part`` [rows, D] with ``query`` [D], on the calling thread."""
    if _BLAS_IS_SINGLE:
        product: np.ndarray = part @ query
    elif hasattr(np, "vecdot"):  # one BLAS dot product per row, each too short for threads
        product = np.vecdot(part, query)
    else:
        product = np.einsum("nd,d->n", part, query)
    return product


def _best(view: View, query: np.ndarray, scores: np.ndarray, k: int, floor: float) -> list[tuple[int, float]]:
    error = scan_error(len(query))
    cut = floor - error
    if k < len(scores):
        # The k best of the scan are truly at least kth - error, so a true winner scans at least kth - 2 error.
        kth = float(np.partition(scores, len(scores) - k)[len(scores) - k])
        cut = max(cut, kth - 2.0 * error)
    # The cut is rounded down to float32 for the comparison; -inf marks rows that are not allowed.
    rows = np.flatnonzero((scores >= np.nextafter(np.float32(cut), np.float32(-np.inf))) & (scores > -np.inf))
    cosines = exact_cosines(view, rows, query)
    order = np.lexsort((rows, -cosines))[:k]
    return [(int(rows[i]), float(cosines[i])) for i in order if cosines[i] >= floor]


def exact_cosines(view: View, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float64 [len(rows)] cosines of the keys at ``rows`` (rising) with ``query`` (float64 [D], norm 1)."""
    cosines = np.empty(len(rows), dtype=np.float64)
    block = max(1, _RESCORE_BYTES // (8 * len(query)))
    first = 0
    for segment in view.segments:
        low, high = np.searchsorted(rows, (first, first + len(segment)))
        for start in range(low, high, block):
            stop = min(high, start + block)
            cosines[start:stop] = cosines_of(segment[rows[start:stop] - first], query)
        first += len(segment)
    return cosines


def cosines_of(stored: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float64 [n] cosines of ``stored`` (float32 [n, D]) with ``query`` (float64 [D], norm 1)."""
    keys = stored.astype(np.float64)
    # Row by row in one fixed order, so that equal keys have equal cosines wherever they lie.
    cosines: np.ndarray = (keys * query).sum(axis=1) / np.sqrt((keys * keys).sum(axis=1))
    return cosines.clip(-1.0, 1.0)
