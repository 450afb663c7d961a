"""The figures that the reports of runs and of comparisons share: means with intervals, changes, router, labels, recall.

Builds on numpy alone; it reads marks, never gold answers (scoring made the marks). All intervals are 95 % percentile
bootstrap intervals over *problems* (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13): a problem is
drawn with all of its samples and all answers to it that are compared. So differences are paired. Where a problem was
asked under several seeds it is drawn with all of them: thirty problems asked three times are still thirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Row = Mapping[str, Any]
Figures = dict[str, Any]
Interval = tuple[float, float, float]
"""Mean, low, high."""

_CHUNK = 2_000_000  # resampled indices held at once: 16 MB


def bootstrap_means(values: Floats, *, seed: int, resamples: int) -> Floats:
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


def mean_interval(values: Floats, *, seed: int = 0, resamples: int = 2000) -> Figures:
    """``{mean, low, high, n}`` of the values that are not NaN, one a problem; all but n are None if there are none."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return {"mean": None, "low": None, "high": None, "n": 0}
    means = bootstrap_means(kept[:, None], seed=seed, resamples=resamples)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(kept.mean()), "low": float(low), "high": float(high), "n": len(kept)}


def intervals(ids: Sequence[str], columns: Mapping[str, Floats]) -> dict[str, Interval]:
    """The interval of each column; values of one id are drawn together.

    Args:
        ids: problem of each value, at least one.
        columns: float64 [n] each, no NaN.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(ids))}
    table = np.zeros((len(places), len(columns) + 1))
    np.add.at(table, [places[name] for name in ids], np.column_stack([*columns.values(), np.ones(len(ids))]))
    drawn = bootstrap_means(table, seed=0, resamples=2000)
    low, high = np.percentile(drawn[:, :-1] / drawn[:, -1:], [2.5, 97.5], axis=0)
    return {
        name: (float(values.mean()), float(low[at]), float(high[at]))
        for at, (name, values) in enumerate(columns.items())
    }


def prefix_accuracy(values: Sequence[float] | Floats) -> Floats:
    """Mean of the first t values for t = 1..n, float64 [n]."""
    array = np.asarray(values, dtype=np.float64)
    means: Floats = np.cumsum(array) / np.arange(1, len(array) + 1)
    return means


def prefix_band(values: Floats, *, seed: int = 0, resamples: int = 1000) -> tuple[Floats, Floats]:
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


def changes(pairs: Iterable[tuple[Row, Row]]) -> dict[str, int]:
    """What became of each problem, compared with zero-shot; from (zero-shot's marks, the marks of what is compared).

    By the vote over the samples: ``learned`` wrong to right; ``corrupted`` right to wrong; ``sharpened`` right both
    times with a larger share of right samples, ``blurred`` with a smaller one; ``unchanged`` all else.
    ``greedy_learned`` and ``greedy_corrupted`` are the same transitions of the greedy answer. ``n`` problems.
    """
    counts = dict.fromkeys(("learned", "sharpened", "corrupted", "blurred", "unchanged"), 0)
    counts |= {"greedy_learned": 0, "greedy_corrupted": 0, "n": 0}
    for before, after in pairs:
        counts["n"] += 1
        was, now = bool(before.get("majority_correct")), bool(after.get("majority_correct"))
        if was != now:
            counts["learned" if now else "corrupted"] += 1
        elif now and after["correct"] != before["correct"]:
            counts["sharpened" if after["correct"] > before["correct"] else "blurred"] += 1
        else:
            counts["unchanged"] += 1
        was, now = bool(before.get("greedy_correct")), bool(after.get("greedy_correct"))
        if was != now:
            counts["greedy_learned" if now else "greedy_corrupted"] += 1
    return counts


def router_table(choices: Iterable[tuple[Row, Row, Row]]) -> dict[str, dict[str, int]]:
    """The router's 2 x 2, for greedy answers and for samples (paired by index); from the marks of (zero-shot, memory,
    what was returned) where a memory was recalled.

    ``wrong_right`` counts answers that were wrong zero-shot and right after routing, and so on; ``could_gain`` those
    where only the memory's answer was right and ``gained`` how many of them the router got right; ``could_lose``
    those where only zero-shot was right and ``lost`` how many of them it got wrong.
    """
    keys = ("right_right", "right_wrong", "wrong_right", "wrong_wrong", "could_gain", "gained", "could_lose", "lost")
    table = {kind: dict.fromkeys(keys, 0) for kind in ("greedy", "sampled")}
    for cells in choices:
        marks = {
            "greedy": [[cell.get("greedy_correct")] for cell in cells],
            "sampled": [cell.get("rights") or [] for cell in cells],
        }
        for kind, counts in table.items():
            for before, candidate, after in zip(*marks[kind], strict=False):
                if before is None or candidate is None or after is None:
                    continue
                counts[f"{'right' if before else 'wrong'}_{'right' if after else 'wrong'}"] += 1
                if candidate and not before:
                    counts["could_gain"] += 1
                    counts["gained"] += bool(after)
                if before and not candidate:
                    counts["could_lose"] += 1
                    counts["lost"] += not after
    return table


MARGIN_EDGES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Bins of the vote's margin (lead over the runner-up as a share of the votes); each holds its upper edge."""


def label_accuracy(labels: Iterable[tuple[bool | None, float | None, bool]]) -> tuple[Figures, Figures]:
    """How often what was learned from was right, of (whether it is right, its vote's margin, whether it was kept), and
    how often what was kept was; labels without a mark are left out.

    ``{n, right, by_margin: [{low, high, n, right}, ...]}`` and ``{n, right}``; the first bin also holds margin 0.
    """
    marked = [label for label in labels if label[0] is not None]

    def counted(held: Sequence[tuple[bool | None, float | None, bool]]) -> Figures:
        return {"n": len(held), "right": sum(right is True for right, _, _ in held)}

    bins = []
    for low, high in pairwise(MARGIN_EDGES):
        least = -1.0 if low == MARGIN_EDGES[0] else low
        held = [label for label in marked if label[1] is not None and least < label[1] <= high]
        bins.append({"low": low, "high": high, **counted(held)})
    return {**counted(marked), "by_margin": bins}, counted([label for label in marked if label[2]])


def recall_precision(recalls: Iterable[tuple[str | None, str | None]]) -> Figures:
    """How often what was recalled came from a problem of the same family, of (family asked, family found).

    ``{recalled, known, same_family, precision}``: ``known`` counts recalls where both families are known (a memory
    made before, or a source without families, is not), ``precision`` = same_family / known or None.
    """
    found = list(recalls)
    known = [asked == source for asked, source in found if asked and source]
    same, precision = sum(known), sum(known) / len(known) if known else None
    return {"recalled": len(found), "known": len(known), "same_family": same, "precision": precision}
