"""The exact search itself: its error bound holds, and it orders what float32 cannot tell apart."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.bank.search import index
from tacit.bank.search.index import DELETED, Helpers, KeyMatrix, nearest, scan_error
from tacit.bank.search.matrices import unit_queries


def matrix(keys, states=None):
    made = KeyMatrix(keys.shape[1])
    n = len(keys)
    names = [f"m{i}" for i in range(n)]
    made.append(range(1, n + 1), names, names, [1] * n if states is None else states, keys)
    return made


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact_order(keys, query):
    """Rows by their true cosine in rational arithmetic (squared, signed), ties by row."""
    exact = [Fraction(float(x)) for x in query]

    def cosine(row):
        values = [Fraction(float(x)) for x in row]
        dot = sum(a * b for a, b in zip(values, exact, strict=True))
        return (1 if dot > 0 else -1) * dot * dot / sum(a * a for a in values)

    return sorted(range(len(keys)), key=lambda i: (-cosine(keys[i]), i))


@given(st.integers(2, 300), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_scan_stays_within_its_bound(dim, seed):
    """For every way of adding up; ``keys @ query`` and einsum differ in the last bits."""
    rng = np.random.default_rng(seed)
    # Large values that cancel are where float32 sums err most.
    rows = rng.standard_normal((50, dim)) * 10.0 ** rng.uniform(-3, 3, size=(50, dim))
    keys, queries = unit(rows), unit_queries(rng.standard_normal((1, dim)) * 10.0 ** rng.uniform(-3, 3, dim))
    view = matrix(keys).view()
    true = index.exact_cosines(view, np.arange(50), queries[0])
    query = queries[0].astype(np.float32)
    ways = [keys @ query, np.einsum("nd,d->n", keys, query), np.vecdot(keys, query)]
    ways.append(index._scan(view, query[None], None)[0])
    ways.append(index._scan(view, np.array([query, query]), None)[1])
    for scores in ways:
        assert np.abs(scores - true).max() <= scan_error(dim)


@pytest.mark.parametrize("dim", [64, 1024])
def test_order_below_float32_resolution_is_the_true_one(dim):
    rng = np.random.default_rng(dim)
    query = unit(rng.standard_normal((1, dim)))[0]
    # All at 45 degrees from the query in directions of their own: true cosines within 1e-7, float32 sums that err more.
    others = rng.standard_normal((300, dim))
    others -= np.outer(others @ query, query)
    keys = unit(query + others / np.linalg.norm(others, axis=1, keepdims=True))
    found = nearest(matrix(keys).view(), unit_queries(query[None]), k=40, floor=-1.0, codes=[1], helpers=None)[0]
    true = exact_order(keys, query)[:40]
    assert [row for row, _ in found] == true
    plain = np.argsort(-index._scan(matrix(keys).view(), query[None], None)[0], kind="stable")[:40]
    assert set(plain) != set(true)  # the scan alone would have been wrong, not only about the order


@pytest.mark.parametrize("how", ["product", "blas", "vecdot", "einsum"])
def test_threads_and_batches_change_nothing(monkeypatch, how):
    monkeypatch.setattr(index, "_BLAS_IS_SINGLE", how == "product")
    if how == "einsum":
        monkeypatch.delattr(np, "vecdot", raising=False)
    rng = np.random.default_rng(0)
    keys = unit(rng.standard_normal((5000, 32)))
    keys[1::9] = keys[0]
    states = [DELETED if i % 5 == 4 else i % 2 for i in range(5000)]
    view = matrix(keys, states).view()
    queries = unit_queries(np.concatenate([keys[:3], rng.standard_normal((70, 32))]))
    settings_ = {"k": 600, "floor": 0.1, "codes": [1]}
    plain = nearest(view, queries, **settings_, helpers=None)
    monkeypatch.setattr(index, "_SHARED_BYTES", 0 if how in ("product", "blas") else 2**62)
    monkeypatch.setattr(index, "_SEGMENT_BYTES", 3 * 4096)
    monkeypatch.setattr(index, "_CHUNK_BYTES", 4096)
    monkeypatch.setattr(index, "_RESCORE_BYTES", 2048)
    helpers = Helpers(3)
    try:
        assert [nearest(view, query[None], **settings_, helpers=helpers)[0] for query in queries] == plain
    finally:
        helpers.stop()
    assert nearest(view, queries[:1], **settings_, helpers=helpers)[0] == plain[0]  # stopped: the caller does it all
    for query, hits in zip(queries, plain, strict=True):
        cosines = (keys.astype(np.float64) * query).sum(axis=1)
        cosines /= np.linalg.norm(keys.astype(np.float64), axis=1)
        allowed = [i for i in range(5000) if states[i] == 1 and cosines[i] >= 0.1]
        expected = sorted(allowed, key=lambda i: (-round(cosines[i], 12), i))[:600]
        assert [row for row, _ in hits] == expected


def test_matrix_grows_in_segments_and_old_views_stay(monkeypatch):
    monkeypatch.setattr(index, "_SEGMENT_BYTES", 4 * 4 * 1000)
    rng = np.random.default_rng(0)
    keys = unit(rng.standard_normal((5000, 4)))
    made, row = KeyMatrix(4), 0
    views = []
    for size in (1, 0, 255, 1, 700, 3000, 1043):
        names = [f"m{i}" for i in range(row, row + size)]
        made.append(range(row + 1, row + size + 1), names, names, [1] * size, keys[row : row + size])
        row += size
        views.append((row, made.view()))
    assert row == 5000 and made.last == 5000
    made.change([(i, DELETED) for i in range(1, 4001)] + [(10**9, 1)])
    assert made.mostly_deleted() and not (made.view().states[4000:] == DELETED).any()
    for rows, view in views:
        assert view.rows == rows and (view.states == 1).all()
        assert np.array_equal(np.concatenate(view.segments)[:rows], keys[:rows])
        best = nearest(view, unit_queries(keys[:1]), k=1, floor=-1.0, codes=[1], helpers=None)[0]
        assert best[0][0] == 0


def test_queries_of_any_size_are_normalised():
    for scale in (1e-30, 1.0, 1e30, 1e300):
        queries = unit_queries(np.array([[3.0, 4.0]]) * scale)
        assert np.allclose(queries, [[0.6, 0.8]], atol=1e-15)
    assert unit_queries(np.zeros((1, 3))) is None and unit_queries(np.array([[1.0, np.nan]])) is None


def test_bound_of_absurd_dimensions_is_still_a_bound():
    assert scan_error(2**26) == 2.0 and scan_error(8) < 2e-5 and scan_error(1024) < 1e-4
