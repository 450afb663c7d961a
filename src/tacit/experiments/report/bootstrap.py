"""Means and curves with their uncertainty: bootstrap intervals over problems.

Builds on numpy alone. All intervals are 95 % percentile bootstrap intervals (Efron and Tibshirani, An Introduction
to the Bootstrap, 1993, ch. 13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
_CHUNK = 2_000_000  # resampled indices held at once: 16 MB


def bootstrap_means(values: Floats, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Means of ``resamples`` bootstrap samples of the rows of ``values``.

    Args:
        values: float64 [n, m], one row a problem, one column a quantity; n >= 1, no NaN.
        seed: of the resampling; equal seeds and n draw equal resamples.

    Returns:
        float64 [resamples, m].
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    parts = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n))
        # How often each problem was drawn, [rows, n]: a matrix product with it serves all columns at once.
        flat = (drawn + n * np.arange(rows)[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)
        parts.append(counts @ values / n)
    return np.concatenate(parts)


def mean_interval(values: Floats, *, seed: int, resamples: int = RESAMPLES) -> dict[str, float | int | None]:
    """``{mean, low, high, n}`` of the values that are not NaN; all but n are None if there are none."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return {"mean": None, "low": None, "high": None, "n": 0}
    means = bootstrap_means(kept[:, None], seed=seed, resamples=resamples)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(kept.mean()), "low": float(low), "high": float(high), "n": len(kept)}


def prefix_accuracy(values: Sequence[float] | Floats) -> Floats:
    """Mean of the first t values for t = 1..n, float64 [n]."""
    array = np.asarray(values, dtype=np.float64)
    means: Floats = np.cumsum(array) / np.arange(1, len(array) + 1)
    return means


def windowed_accuracy(values: Sequence[float] | Floats, window: int) -> Floats:
    """Mean of the last ``window`` values up to each position (of fewer at the start), float64 [n]; window >= 1."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - window)
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def prefix_band(values: Floats, *, seed: int, resamples: int = 1000) -> tuple[Floats, Floats]:
    """Pointwise 95 % bootstrap band of the prefix accuracy, two float64 [n].

    A Poisson bootstrap: each problem gets an independent Poisson(1) weight, so one cumulative sum resamples every
    prefix at once (Chamandy et al., Estimating uncertainty for massive data streams, 2012). Resamples in which a
    prefix is still empty are left out of its quantiles.
    """
    weights = np.random.default_rng(seed).poisson(1.0, size=(resamples, len(values))).astype(np.float64)
    mass = np.cumsum(weights, axis=1)
    sums = np.cumsum(weights * values, axis=1)
    means = np.divide(sums, mass, out=np.full_like(sums, np.nan), where=mass > 0)
    # A short prefix can be empty in every resample; its band is then the value itself.
    means[0] = np.where(np.isnan(means[0]), prefix_accuracy(values), means[0])
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    return low, high
