"""From result rows to the figures of summary.json: accuracies, paired gains, harm, and the router's and bank's record.

Builds on bootstrap; it reads marks, never gold answers (scoring made the marks). All intervals are 95 % percentile
bootstrap intervals over *problems* (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13): a problem is
drawn with all of its samples and all of its arms, so differences between arms are paired. Intervals describe this one
order of problems and this one seed; runs with other seeds are other runs.

Where an arm had nothing to go on (no memory recalled yet, no trace to show) its answer is zero-shot's, as it would be
in use; ``covered`` counts the problems where it had something. Problems without gold answer are left out and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.experiments.report.bootstrap import (
    RESAMPLES,
    Floats,
    mean_interval,
)

Row = Mapping[str, Any]

FALLBACK_ARMS = ("memory", "routed", "icl", "random", "verified")
"""Arms that answer like zero-shot where they had nothing to go on."""

CONTROLS = ("random", "verified")
"""Arms that are shown only if they were run; the others are always in the summary, with n = 0 if need be."""


def has_gold(row: Row) -> bool:
    """Whether the row carries marks."""
    return (row.get("zero_shot") or {}).get("correct") is not None


def column(rows: Sequence[Row], arm: str, key: str = "correct") -> Floats:
    """One mark per row, float64 [n], NaN where undefined; ``key`` is correct, greedy_correct or majority_correct.

    An arm of ``FALLBACK_ARMS`` that is null in a row has zero-shot's mark there, unless it is null in all rows: then
    it was not run (or, for the memory arm, never recalled: zero-shot throughout, which is the truth).
    """
    falls_back = arm in FALLBACK_ARMS and (arm in ("memory", "routed") or any(row.get(arm) for row in rows))
    out = np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        cell = row.get(arm) or (row.get("zero_shot") if falls_back else None) or {}
        mark = cell.get(key)
        if mark is not None:
            out[i] = float(mark)
    return out


def arm_tokens(rows: Sequence[Row], arm: str) -> npt.NDArray[np.int64]:
    """Tokens each problem cost under an arm, int64 [n]: Tacit (memory, routed) is charged with all it spent, answers
    and learning; a baseline with its own answers alone."""
    out = np.zeros(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if arm in ("memory", "routed", "routed_majority"):
            out[i] = row.get("tokens") or 0
        else:
            out[i] = (row.get(arm) or row.get("zero_shot") or {}).get("tokens") or 0
    return out


def _columns(rows: Sequence[Row]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Sampled and greedy marks of every arm that has any."""
    arms = ["zero_shot", "memory", "routed", "icl", "majority", *CONTROLS]
    sampled = {arm: column(rows, arm) for arm in arms}
    greedy = {arm: column(rows, arm, "greedy_correct") for arm in arms if arm != "majority"}
    sampled["zero_shot_majority"] = column(rows, "zero_shot", "majority_correct")
    sampled["routed_majority"] = column(rows, "routed", "majority_correct")
    return sampled, greedy


def _arms(
    rows: Sequence[Row], sampled: Mapping[str, Floats], greedy: Mapping[str, Floats], seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    arms: dict[str, dict[str, Any]] = {}
    for arm, values in sampled.items():
        stats = mean_interval(values, seed=seed, resamples=resamples)
        if arm in CONTROLS and not stats["n"]:
            continue
        low_temperature = mean_interval(greedy[arm], seed=seed, resamples=resamples) if arm in greedy else None
        source = arm.removesuffix("_majority")
        arms[arm] = {
            "accuracy": stats["mean"],
            "greedy": low_temperature["mean"] if low_temperature else None,
            "n": stats["n"],
            "low": stats["low"],
            "high": stats["high"],
            "greedy_low": low_temperature["low"] if low_temperature else None,
            "greedy_high": low_temperature["high"] if low_temperature else None,
            "covered": sum(1 for row in rows if row.get(source)),
            "tokens": int(arm_tokens(rows, arm if arm in ("majority", "routed_majority") else source).sum())
            if stats["n"]
            else 0,
        }
    arms["memory"]["recalled"] = arms["memory"]["covered"]
    return arms


def summarise(
    rows: Sequence[Row],
    *,
    seed: int = 0,
    model: str | None = None,
    version: str | None = None,
    settings: Mapping[str, Any] | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """All figures of a run, JSON-safe (no NaN, no numpy types).

    Args:
        rows: result rows in stream order (see runner); rows without gold are counted in ``unscored``.
        seed: of the run, and of the resampling.
        model: what ``--model`` said.
        version: of Tacit.
        settings: further settings of the run, kept under ``settings``.
        resamples: bootstrap resamples.

    Returns:
        A dict; ``gain`` is routed minus zero-shot (paired), ``gains[arm]`` any arm against zero-shot,
        ``gain_over_icl`` routed minus ICL, ``gain_over_verified`` routed minus the verifier's choice between two
        zero-shot answers (what memories add to a verifier), ``gain_over_majority`` the vote over routed samples minus
        the vote over as many zero-shot rollouts as Tacit spent in all.
    """
    marked = [row for row in rows if has_gold(row)]
    sampled, greedy = _columns(marked)

    def paired(left: Floats, right: Floats) -> dict[str, float | int | None]:
        return mean_interval(left - right, seed=seed, resamples=resamples)

    gains = {
        arm: {
            "sampled": paired(sampled[arm], sampled["zero_shot"]),
            "greedy": paired(greedy[arm], greedy["zero_shot"]) if arm in greedy else None,
        }
        for arm in ("routed", "memory", "icl", "majority", *CONTROLS)
        if arm not in CONTROLS or not np.isnan(sampled[arm]).all()
    }
    half = len(marked) // 2
    summary = {
        "model": model,
        "seed": seed,
        "version": version,
        "problems": len(rows),
        "scored": len(marked),
        "unscored": len(rows) - len(marked),
        "arms": _arms(marked, sampled, greedy, seed, resamples),
        "gain": gains["routed"]["sampled"],
        "gain_greedy": gains["routed"]["greedy"],
        "gain_over_icl": paired(sampled["routed"], sampled["icl"]),
        "gain_over_icl_greedy": paired(greedy["routed"], greedy["icl"]),
        "gain_over_verified": paired(sampled["routed"], sampled["verified"]),
        "gain_over_verified_greedy": paired(greedy["routed"], greedy["verified"]),
        "gain_over_majority": paired(sampled["routed_majority"], sampled["majority"]),
        "gains": gains,
        "halves": {
            name: {arm: _mean(values[part]) for arm, values in sampled.items()}
            for name, part in (("first", slice(0, half)), ("last", slice(half, None)))
        },
        "changes": {arm: changes(marked, arm) for arm in ("memory", "routed")},
        "router": router_table(marked),
        "labels": label_accuracy(marked),
        "retrieval": retrieval_precision(rows),
        "families": family_table(marked),
        **memory_counts(rows),
        "tokens": sum(int(row.get("tokens") or 0) for row in rows),
        # Learning that left no memory cost its tokens too, so they are what answering does not account for.
        "tokens_learning": sum(int(row.get("tokens") or 0) - _answer_tokens(row) for row in rows),
        "seconds": math.fsum(float(row.get("seconds") or 0.0) for row in rows),
        "routes": dict(Counter(str((row.get("routed") or {}).get("route")) for row in rows)),
        "bootstrap": {"resamples": resamples, "level": 0.95, "unit": "problem"},
        "settings": dict(settings or {}),
    }
    return summary


def _answer_tokens(row: Row) -> int:
    return sum(int((row.get(arm) or {}).get("tokens") or 0) for arm in ("zero_shot", "memory"))


def _mean(values: Floats) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def changes(rows: Sequence[Row], arm: str) -> dict[str, int]:
    """What an arm did to each problem, compared with zero-shot.

    By the vote over the samples: ``learned`` wrong to right, ``corrupted`` right to wrong, ``sharpened`` right both
    times with a larger share of right samples, ``blurred`` right both times with a smaller one, ``unchanged`` all
    else. ``greedy_learned`` and ``greedy_corrupted`` are the same transitions of the greedy answer. ``n`` problems.
    """
    counts = dict.fromkeys(("learned", "sharpened", "corrupted", "blurred", "unchanged"), 0)
    counts |= {"greedy_learned": 0, "greedy_corrupted": 0, "n": 0}
    for row in rows:
        before = row["zero_shot"]
        after = row.get(arm) or before
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


def router_table(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """The router's 2 x 2, for greedy answers and for samples (paired by index), where a memory was recalled.

    ``wrong_right`` counts answers that were wrong zero-shot and right after routing, and so on; ``could_gain`` those
    where only the memory's answer was right and ``gained`` how many of them the router got right; ``could_lose``
    those where only zero-shot was right and ``lost`` how many of them it got wrong.
    """
    keys = ("right_right", "right_wrong", "wrong_right", "wrong_wrong", "could_gain", "gained", "could_lose", "lost")
    table = {kind: dict.fromkeys(keys, 0) for kind in ("greedy", "sampled")}
    for row in rows:
        if not row.get("memory") or not row.get("routed"):
            continue
        cells = [row["zero_shot"], row["memory"], row["routed"]]
        marks = {
            "greedy": [[cell.get("greedy_correct")] for cell in cells],
            "sampled": [cell.get("rights") or [] for cell in cells],
        }
        for kind, (zero_shot, memory, routed) in marks.items():
            for before, candidate, after in zip(zero_shot, memory, routed, strict=False):
                if before is None or candidate is None or after is None:
                    continue
                counts = table[kind]
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


def label_accuracy(rows: Sequence[Row]) -> dict[str, Any]:
    """How often the vote that a memory learned from was right: in all, where admitted, and by margin of the vote.

    ``{n, right, admitted: {n, right}, by_margin: [{low, high, n, right}, ...]}``; the first bin also holds margin 0.
    """
    labelled = [row["learned"] for row in rows if (row.get("learned") or {}).get("label_correct") is not None]
    admitted = [learned for learned in labelled if learned.get("state") == "active"]
    bins = []
    for low, high in pairwise(MARGIN_EDGES):
        held = [
            learned
            for learned in labelled
            if learned.get("margin") is not None
            and (low < learned["margin"] <= high or (low == MARGIN_EDGES[0] and learned["margin"] <= low))
        ]
        bins.append({"low": low, "high": high, "n": len(held), "right": _right_labels(held)})
    return {
        "n": len(labelled),
        "right": _right_labels(labelled),
        "admitted": {"n": len(admitted), "right": _right_labels(admitted)},
        "by_margin": bins,
    }


def _right_labels(learned: Sequence[Mapping[str, Any]]) -> int:
    return sum(1 for record in learned if record["label_correct"])


def retrieval_precision(rows: Sequence[Row]) -> dict[str, int | float | None]:
    """How often the recalled memory came from a problem of the same family.

    ``{recalled, known, same_family, precision}``: ``known`` counts recalls where both families are known (a memory
    made before this run, or by a source without families, is not), ``precision`` = same_family / known or None.
    """
    family_of = {row.get("id"): row.get("family") for row in rows}
    recalled = [row for row in rows if row.get("memory")]
    known = [
        (row["family"], family_of[row["memory"].get("source")])
        for row in recalled
        if row.get("family") and family_of.get(row["memory"].get("source"))
    ]
    same = sum(1 for asked, found in known if asked == found)
    return {
        "recalled": len(recalled),
        "known": len(known),
        "same_family": same,
        "precision": same / len(known) if known else None,
    }


def family_table(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Per family: ``n``, ``recalled`` and ``{zero_shot, memory, routed}: {accuracy, greedy}``, sorted by name."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(str(row.get("family") or "unknown"), []).append(row)
    return {
        family: {
            "n": len(members),
            "recalled": sum(1 for row in members if row.get("memory")),
            **{
                arm: {
                    "accuracy": _mean(column(members, arm)),
                    "greedy": _mean(column(members, arm, "greedy_correct")),
                }
                for arm in ("zero_shot", "memory", "routed")
            },
        }
        for family, members in sorted(families.items())
    }


def memory_counts(rows: Sequence[Row]) -> dict[str, Any]:
    """``memories``: how many this run stored; ``memories_by_state``: in which state each was when it was stored;
    ``not_learned``: problems that left none, by reason."""
    learned = [row.get("learned") for row in rows]
    stored = [record for record in learned if record and record.get("memory_id")]
    others = [row for row, record in zip(rows, learned, strict=True) if not (record and record.get("memory_id"))]
    return {
        "memories": len(stored),
        "memories_by_state": dict(Counter(str(record.get("state")) for record in stored)),
        # A reason may go on, after a colon, with the particulars of its problem.
        "not_learned": dict(Counter(str(row.get("not_learned") or "unknown").split(":")[0] for row in others)),
    }
