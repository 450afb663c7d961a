"""From result rows to the figures of summary.json: accuracies, paired gains, harm, and the router's and bank's record.

Builds on figures. Intervals describe this one order of problems and this one seed; runs with other seeds are other
runs. Where an arm had nothing to go on (no memory recalled yet, no trace to show) its answer is zero-shot's, as it
would be in use; ``covered`` counts the problems where it had something. Problems without gold answer are left out and
counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.experiments.report import figures
from tacit.experiments.report.figures import Figures, Floats, Row
from tacit.experiments.scoring import asked, counted

RESAMPLES = 10_000
TACIT = ("memory", "routed")
CONTROLS = ("random", "verified", "vote")
"""Arms that are shown only if they were run; the others are always in the summary, with n = 0 if need be."""

ARMS = ("zero_shot", *TACIT, "icl", "majority", *CONTROLS)
VOTERS = ("majority", "vote")
"""Arms that give one answer, of a vote."""
VOTES = ("zero_shot_majority", "routed_majority")
"""The vote over an arm's samples, as an arm of its own."""

LABELS = {
    "zero_shot": "zero-shot",
    "icl": "ICL, one raw trace",
    "random": "random memory (control)",
    "memory": "memory",
    "verified": "verifier alone (control)",
    "routed": "routed (Tacit)",
    "zero_shot_majority": "vote of zero-shot samples",
    "vote": "vote of as many samples",
    "majority": "vote at equal compute",
    "routed_majority": "vote of routed samples",
}
"""What arms are called, in the order of the table: answers first, then votes."""


def has_gold(row: Row) -> bool:
    """Whether the row carries marks."""
    return (row.get("zero_shot") or {}).get("correct") is not None


def column(rows: Sequence[Row], arm: str, key: str = "correct") -> Floats:
    """One mark per row, float64 [n], NaN where undefined; ``key`` is correct, greedy_correct or majority_correct.

    Where an arm that does not vote is null in some rows, it has zero-shot's mark there. Null in all rows it was not run
    (or, for the memory arm, never recalled: zero-shot throughout, which is the truth).
    """
    if arm in VOTES:
        arm, key = arm.removesuffix("_majority"), "majority_correct"
    falls_back = arm in TACIT or (arm not in VOTERS and any(row.get(arm) for row in rows))
    cells = [row.get(arm) or (row.get("zero_shot") if falls_back else None) or {} for row in rows]
    marks = [cell.get(key) for cell in cells]
    return np.array([np.nan if mark is None else float(mark) for mark in marks], dtype=np.float64)


def with_answer(rows: Sequence[Row], arm: str) -> float | None:
    """The share of an arm's samples that have an answer; None of votes, and of nothing. Where the arm is null in a row
    it answered as zero-shot did, as in ``column``."""
    if arm in VOTES or arm in VOTERS or not (arm in TACIT or any(row.get(arm) for row in rows)):
        return None
    share: float | None = counted((row.get(arm) or row.get("zero_shot") or {}).get("answers") or () for row in rows)[
        "share"
    ]
    return None if share is None else 1 - share


def arm_tokens(rows: Sequence[Row], arm: str) -> npt.NDArray[np.int64]:
    """Tokens each problem cost under an arm, int64 [n]: Tacit (memory, routed) is charged with all it spent, answers
    and learning; a baseline with its own answers alone."""
    source = arm.removesuffix("_majority")
    cells = rows if source in TACIT else [row.get(source) or row.get("zero_shot") or {} for row in rows]
    return np.array([cell.get("tokens") or 0 for cell in cells], dtype=np.int64)


def summarise(
    rows: Sequence[Row],
    *,
    seed: int = 0,
    model: str | None = None,
    version: str | None = None,
    settings: Mapping[str, Any] | None = None,
    resamples: int = RESAMPLES,
) -> Figures:
    """All figures of a run, JSON-safe (no NaN, no numpy types).

    Args:
        rows: result rows in stream order (see experiments.run); rows without gold are counted in ``unscored``.
        seed: of the run, and of the resampling.
        model: what ``--model`` said.
        version: of Tacit.
        settings: further settings of the run, kept under ``settings``.
        resamples: bootstrap resamples.

    Returns:
        A dict; ``gain`` is routed minus zero-shot (paired), ``gains[arm]`` any arm against zero-shot, ``gain_over_icl``
        routed minus ICL. ``gain_over_verified`` is routed minus the verifier's choice between two zero-shot answers
        (what memories add to a verifier). ``gain_over_majority`` is the vote over routed samples minus the vote over as
        many zero-shot rollouts as Tacit spent. ``gain_over_vote``, where that was run, is routed minus the vote over as
        many as routing sees. ``votes_over_vote`` is the vote over routed samples minus that; ``gain_over_random`` the
        recalled memory minus any one.
    """
    marked = [row for row in rows if has_gold(row)]
    late = () if any(row.get("vote") for row in marked) else ("vote",)  # it came later, and is nothing where it is not
    sampled = {arm: column(marked, arm) for arm in (*ARMS, *VOTES) if arm not in late}
    greedy = {arm: column(marked, arm, "greedy_correct") for arm in ARMS if arm not in VOTERS}
    shown = [arm for arm in sampled if arm not in CONTROLS or not np.isnan(sampled[arm]).all()]

    def interval(values: Floats) -> Figures:
        return figures.mean_interval(values, seed=seed, resamples=resamples)

    def over(held: Mapping[str, Floats], arm: str, other: str) -> Figures:
        return interval(held[arm] - held[other])

    def of_arm(arm: str) -> Figures:
        stats = interval(sampled[arm])
        low_temperature = interval(greedy[arm]) if arm in greedy else dict.fromkeys(("mean", "low", "high"))
        share = with_answer(marked, arm)
        return {
            "accuracy": stats["mean"],
            "greedy": low_temperature["mean"],
            **{name: stats[name] for name in ("n", "low", "high")},
            "greedy_low": low_temperature["low"],
            "greedy_high": low_temperature["high"],
            # Form and content apart: how many samples have an answer, and how many of those are right.
            "answered": share,
            "right_of_answered": stats["mean"] / share if share and stats["mean"] is not None else None,
            "covered": sum(1 for row in marked if row.get(arm.removesuffix("_majority"))),
            "tokens": int(arm_tokens(marked, arm).sum()) if stats["n"] else 0,
        }

    arms = {arm: of_arm(arm) for arm in shown}
    arms["memory"]["recalled"] = arms["memory"]["covered"]
    gains = {
        arm: {
            "sampled": over(sampled, arm, "zero_shot"),
            "greedy": over(greedy, arm, "zero_shot") if arm in greedy else None,
        }
        for arm in ("routed", "memory", "icl", "majority", *CONTROLS)
        if arm in shown
    }
    half, tokens = len(marked) // 2, sum(int(row.get("tokens") or 0) for row in rows)
    return {
        "model": model,
        "seed": seed,
        "version": version,
        "problems": len(rows),
        "scored": len(marked),
        "unscored": len(rows) - len(marked),
        "unanswered": counted(map(asked, rows)),
        "arms": arms,
        "gain": gains["routed"]["sampled"],
        "gain_greedy": gains["routed"]["greedy"],
        "gain_over_icl": over(sampled, "routed", "icl"),
        "gain_over_icl_greedy": over(greedy, "routed", "icl"),
        "gain_over_verified": over(sampled, "routed", "verified"),
        "gain_over_verified_greedy": over(greedy, "routed", "verified"),
        "gain_over_majority": over(sampled, "routed_majority", "majority"),
        **(
            {
                f"{name}_over_vote": over(sampled, arm, "vote")
                for name, arm in (("gain", "routed"), ("votes", "routed_majority"))
            }
            if "vote" in shown
            else {}
        ),
        **(
            {
                f"gain_over_random{name}": over(of, "memory", "random")
                for name, of in (("", sampled), ("_greedy", greedy))
            }
            if "random" in shown
            else {}
        ),
        "gains": gains,
        "halves": {
            name: {arm: _mean(values[part]) for arm, values in sampled.items()}
            for name, part in (("first", slice(0, half)), ("last", slice(half, None)))
        },
        "changes": {
            arm: figures.changes((row["zero_shot"], row.get(arm) or row["zero_shot"]) for row in marked)
            for arm in TACIT
        },
        "router": figures.router_table(
            (row["zero_shot"], row["memory"], row["routed"])
            for row in marked
            if row.get("memory") and row.get("routed")
        ),
        "labels": _labels(marked),
        "retrieval": _retrieval(rows),
        "families": _families(marked),
        **memory_counts(rows),
        "tokens": tokens,
        # Learning that left no memory cost its tokens too, so they are what answering does not account for.
        "tokens_learning": tokens
        - sum(int((row.get(arm) or {}).get("tokens") or 0) for row in rows for arm in ("zero_shot", "memory")),
        "seconds": math.fsum(float(row.get("seconds") or 0.0) for row in rows),
        "routes": dict(Counter(str((row.get("routed") or {}).get("route")) for row in rows)),
        "bootstrap": {"resamples": resamples, "level": 0.95, "unit": "problem"},
        "settings": dict(settings or {}),
    }


def _mean(values: Floats) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _labels(rows: Sequence[Row]) -> Figures:
    """How often the vote that a memory learned from was right: in all, by margin of the vote, and where admitted."""
    learned = [row["learned"] for row in rows if row.get("learned")]
    found, admitted = figures.label_accuracy(
        (one.get("label_correct"), one.get("margin"), one.get("state") == "active") for one in learned
    )
    return {"n": found["n"], "right": found["right"], "admitted": admitted, "by_margin": found["by_margin"]}


def _retrieval(rows: Sequence[Row]) -> Figures:
    family_of = {row.get("id"): row.get("family") for row in rows}
    return figures.recall_precision(
        (row.get("family"), family_of.get(row["memory"].get("source"))) for row in rows if row.get("memory")
    )


def _families(rows: Sequence[Row]) -> Figures:
    """Per family: ``n``, ``recalled`` and ``{zero_shot, memory, routed}: {accuracy, greedy}``, sorted by name."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(str(row.get("family") or "unknown"), []).append(row)
    return {
        family: {
            "n": len(members),
            "recalled": sum(1 for row in members if row.get("memory")),
            **{
                arm: {"accuracy": _mean(column(members, arm)), "greedy": _mean(column(members, arm, "greedy_correct"))}
                for arm in ("zero_shot", *TACIT)
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
