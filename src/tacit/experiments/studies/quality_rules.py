"""Statistics of the quality study: how well each signal predicts benefit, and which admission rule keeps most of it.

Builds on numpy, config and the report's figures. No model, no gold answers: it reads what ``quality`` measured.

A rule keeps a memory if one or two signals reach their thresholds. Rules are chosen on one part of the seeds, by

    objective = sum of the benefit of the memories kept / number of all memories,

equal objectives by the fewest harmful memories kept, and judged on the other part. Since a dropped memory makes room
for the next nearest one, each rule also gets ``served``: the mean gain over held-out problems when each is answered
with the nearest memory that the rule keeps (zero-shot where it keeps none of those tried).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.config import LearnConfig
from tacit.experiments.report.figures import Floats, Row, mean_interval
from tacit.experiments.report.study_tables import HARMFUL

Bools = npt.NDArray[np.bool_]

RESAMPLES = 2000
QUANTILES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of the choosing memories that a threshold drops."""


def needs_verifier(signal: str) -> bool:
    """Whether a signal is a verifier's."""
    return signal.startswith("verifier")


# -- signals ----------------------------------------------------------------------------------------------------


def ranks(values: Floats) -> Floats:
    """Ranks 1..n of [n]; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


def spearman(left: Floats, right: Floats) -> float | None:
    """Spearman's rank correlation of two [n]; None if either is constant."""
    a, b = ranks(left), ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def auc(scores: Floats, positive: Bools) -> float | None:
    """Share of (positive, negative) pairs with the positive one higher, ties counting half; None without pairs."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    return float((ranks(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def signal_table(memories: Sequence[Row], seed: int = 0) -> list[dict[str, Any]]:
    """Per signal: Spearman correlation with benefit, its 95 % bootstrap interval over memories, AUC of benefit > 0.

    Args:
        memories: each with ``benefit`` (None is left out) and ``signals``.
        seed: of the resampling.

    Returns:
        ``{signal, needs_verifier, spearman, low, high, auc, n}``, best correlation in absolute value first.
    """
    known = [memory for memory in memories if memory["benefit"] is not None]
    table = []
    for name in dict.fromkeys(name for memory in known for name in memory["signals"]):
        rows = [memory for memory in known if memory["signals"].get(name) is not None]
        values = np.array([memory["signals"][name] for memory in rows], dtype=np.float64)
        benefit = np.array([memory["benefit"] for memory in rows], dtype=np.float64)
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, len(rows), len(rows)) for _ in range(RESAMPLES))
        resampled = [rho for rho in (spearman(values[d], benefit[d]) for d in drawn) if rho is not None]
        low, high = (float(q) for q in np.quantile(resampled, [0.025, 0.975])) if resampled else (None, None)
        table.append(
            {
                "signal": name,
                "needs_verifier": needs_verifier(name),
                "spearman": spearman(values, benefit),
                "low": low,
                "high": high,
                "auc": auc(values, benefit > 0),
                "n": len(rows),
            }
        )
    return sorted(table, key=lambda row: -abs(row["spearman"] or 0.0))


# -- rules ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Keeps a memory whose named signals all reach their thresholds; without any, every memory.

    Attributes:
        bounds: (signal, least value).
        waived: signals whose bounds do not hold for a memory whose label a verifier trusts.
    """

    bounds: tuple[tuple[str, float], ...] = ()
    waived: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " and ".join(f"{name} >= {bound:.3g}" for name, bound in self.bounds) or "keep all"

    def keeps(self, memories: Sequence[Row]) -> Bools:
        """Which memories pass, [n]; a signal that a memory lacks does not reach anything."""
        kept = np.ones(len(memories), dtype=bool)
        for name, bound in self.bounds:
            values = [memory["signals"].get(name) for memory in memories]
            reached = np.array([value is not None and value >= bound for value in values], dtype=bool)
            kept &= reached | np.array([name in self.waived and bool(memory.get("trusted")) for memory in memories])
        return kept

    @property
    def needs_verifier(self) -> bool:
        return any(needs_verifier(name) for name, _ in self.bounds)


def default_rule(learn: LearnConfig) -> Rule:
    """The vote gate (which a trusted label passes) and the admission threshold of these settings, as a rule."""
    return Rule(
        (
            ("vote_share", learn.min_votes / 8),
            ("vote_margin", learn.min_lead / 8),
            ("updates", 1.0),
            ("last_reward", learn.admit),
        ),
        waived=("vote_share", "vote_margin"),
    )


def rule_table(memories: Sequence[Row], tries: Sequence[Row], learn: LearnConfig) -> list[dict[str, Any]]:
    """Fixed rules, and the best ones by the objective and by what is served: without a verifier, and with one in them.

    Args:
        memories: with ``part`` ("choose" or "confirm"), ``benefit`` and ``signals``.
        tries: held-out problems with ``part`` and ``nearest``.
        learn: whose gate and threshold are the rule to beat.
    """
    known = [memory for memory in memories if memory["benefit"] is not None]
    chosen_on = [memory for memory in known if memory["part"] == "choose"]
    default = default_rule(learn)
    fixed: list[tuple[str, Rule]] = [
        ("all", Rule()),
        ("default", default),
        ("vote gate", Rule(default.bounds[:2], default.waived)),
        ("reward threshold", Rule(default.bounds[2:])),
    ]
    if chosen_on:
        served = [row for row in tries if row["part"] == "choose"]
        for verifier in (False, True):
            grid = _grid(chosen_on, verifier=verifier)
            if verifier and not any(rule.needs_verifier for rule in grid):
                continue
            where = "verifier" if verifier else "no verifier"
            pairs = [Rule((a.bounds[0], b.bounds[0])) for i, a in enumerate(grid) for b in grid[i + 1 :]]
            pairs = [rule for rule in pairs if rule.bounds[0][0] != rule.bounds[1][0]]
            for many, several in (("one signal", grid), ("two signals", pairs)):
                rules = [rule for rule in several if rule.needs_verifier == verifier]
                fixed.append((f"best {many}, {where}", _best(rules, chosen_on, [])))
                fixed.append((f"best served, {many}, {where}", _best(rules, chosen_on, served)))
    table = []
    for name, rule in fixed:
        for part in ("choose", "confirm"):
            mine = [memory for memory in known if memory["part"] == part]
            if mine:
                rows = [row for row in tries if row["part"] == part]
                table.append({"name": name, **_figures(rule, default, mine, rows), "seeds": part})
    return table


def _grid(memories: Sequence[Row], *, verifier: bool) -> list[Rule]:
    """All one-signal rules with thresholds at quantiles of these memories."""
    rules = []
    for name in memories[0]["signals"]:
        values = [memory["signals"][name] for memory in memories if memory["signals"].get(name) is not None]
        if not values or (needs_verifier(name) and not verifier):
            continue
        bounds = np.unique(np.quantile(values, QUANTILES, method="lower"))
        # The least value as a bound drops nothing.
        rules += [Rule(((name, float(bound)),)) for bound in bounds if bound > min(values)]
    return rules


def _best(rules: Sequence[Rule], memories: Sequence[Row], rows: Sequence[Row]) -> Rule:
    """The rule that is best by what is served to ``rows``, then the objective, then the fewest harmful memories."""
    benefit = np.array([memory["benefit"] for memory in memories])
    server = _Server(memories, rows)
    passes = {bound: Rule((bound,)).keeps(memories) for bound in {bound for rule in rules for bound in rule.bounds}}

    def worth(rule: Rule) -> tuple[float, float, int]:
        kept = np.logical_and.reduce([passes[bound] for bound in rule.bounds])
        gain = float(server.gains(kept).mean()) if rows else 0.0
        # Rounded, so that equal choices of memories tie whatever the order of the sum.
        return (
            round(gain, 9),
            round(float(benefit[kept].sum()) / len(benefit), 9),
            -int((benefit[kept] < HARMFUL).sum()),
        )

    return max(rules, key=worth, default=Rule())


class _Server:
    """What held-out problems gain, each from the nearest memory kept of those tried, or 0 where none of them is."""

    def __init__(self, memories: Sequence[Row], rows: Sequence[Row]) -> None:
        numbers = {memory["id"]: number for number, memory in enumerate(memories)}
        cells = [[cell for cell in row["nearest"] if cell["id"] in numbers] for row in rows]
        width = max((len(row) for row in cells), default=0)
        # The last column is a memory that is always kept and gains nothing.
        self.owner = np.full((len(rows), width + 1), len(memories))
        self.gain = np.zeros((2, len(rows), width + 1))
        for r, row in enumerate(cells):
            for c, cell in enumerate(row):
                self.owner[r, c] = numbers[cell["id"]]
                self.gain[:, r, c] = cell["gain"], cell["greedy_gain"]

    def gains(self, kept: Bools, *, greedy: bool = False) -> Floats:
        """Gain [problems] when the memories ``kept`` [n] are active."""
        first = np.append(kept, True)[self.owner].argmax(1)
        found: Floats = self.gain[int(greedy), np.arange(len(first)), first]
        return found


def _figures(rule: Rule, default: Rule, memories: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    benefit = np.array([memory["benefit"] for memory in memories], dtype=np.float64)
    kept, usual = rule.keeps(memories), default.keeps(memories)
    server = _Server(memories, rows)
    served, before = server.gains(kept), server.gains(usual)
    return {
        "rule": str(rule),
        "needs_verifier": rule.needs_verifier,
        "memories": len(memories),
        "kept": int(kept.sum()),
        "objective": mean_interval(benefit * kept),
        "over_default": mean_interval(benefit * kept - benefit * usual),
        "benefit_kept": mean_interval(benefit[kept]),
        "benefit_dropped": mean_interval(benefit[~kept]),
        "harmful_kept": int((benefit[kept] < HARMFUL).sum()),
        "harmful_dropped": int((benefit[~kept] < HARMFUL).sum()),
        "served": mean_interval(served),
        "served_greedy": mean_interval(server.gains(kept, greedy=True)),
        "served_over_default": mean_interval(served - before),
    }
