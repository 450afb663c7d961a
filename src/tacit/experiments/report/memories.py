"""What became of memories in a comparison: routed, retrieved, rightly labelled, similar, and of use later.

Builds on comparison_cells and metrics, and on answers for the margin of a vote. Reads marks, never gold answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from tacit.answers.vote import vote_answers
from tacit.experiments.report import metrics
from tacit.experiments.report.cells import Figures, Result
from tacit.experiments.report.metrics import Row


def _armed(rows: Iterable[Row]) -> list[Row]:
    """Rows on which a routing method had a memory's answer to choose, in the shape of a run's rows."""
    return [
        {"zero_shot": row["arms"]["zero_shot"], "memory": {**row["arms"]["memory"], **row["notes"]}, "routed": row}
        for row in rows
        if "zero_shot" in row["arms"] and "memory" in row["arms"]
    ]


def router(rows: Iterable[Row]) -> Figures | None:
    """The router's 2 x 2 (metrics.router_table); None for a method that had nothing to choose from."""
    armed = _armed(row for row in rows if row["correct"] is not None)
    return {"problems": len(armed), **metrics.router_table(armed)} if armed else None


def retrieval(results: Sequence[Result]) -> Figures | None:
    """How often what was recalled came from a problem of the same family; a row may name several sources."""
    totals: dict[str, int] = defaultdict(int)
    for result in results:
        rows: list[Row] = [{"id": row["id"], "family": row["family"]} for row in result.rows]
        for row in result.rows:
            sources = row["notes"].get("sources") or [row["notes"].get("source")]
            # Of an id of its own kind, so that it is no problem's family.
            rows += [{"id": None, "family": row["family"], "memory": {"source": one}} for one in sources if one]
        for name, count in metrics.retrieval_precision(rows).items():
            totals[name] += int(count or 0)
    if not totals["recalled"]:
        return None
    known, same = totals["known"], totals["same_family"]
    return {
        "recalled": totals["recalled"],
        "known": known,
        "same_family": same,
        "precision": same / known if known else None,
    }


def labels(rows: Iterable[Row]) -> Figures | None:
    """How often what was learned was right: in all, of what was kept, by margin of the vote. None without labels."""
    found = metrics.label_accuracy(
        [
            {"learned": {**row["lesson"], "state": "active" if row["lesson"]["kept"] else "rejected"}}
            for row in rows
            if row["lesson"]
        ]
    )
    admitted = found.pop("admitted")
    return {**found, "kept": admitted["n"], "kept_right": admitted["right"]} if found["n"] else None


def votes(rows: Iterable[Row]) -> Figures:
    """How often the vote over the samples is right, by its margin: ``{n, right, by_margin}``."""
    found = metrics.label_accuracy(
        [
            {"learned": {"label_correct": row["majority_correct"], "margin": vote_answers(row["answers"]).margin}}
            for row in rows
        ]
    )
    del found["admitted"]
    return found


def similarities(results: Sequence[Result]) -> list[tuple[float, float]]:
    """(similarity of the recalled memory, accuracy with it minus without), one per problem it was recalled for."""
    return [
        (float(row["notes"]["similarity"]), row["arms"]["memory"]["correct"] - row["arms"]["zero_shot"]["correct"])
        for result in results
        for row in result.rows
        if row["correct"] is not None and "memory" in row["arms"] and row["notes"].get("similarity") is not None
    ]


def memories(results: Sequence[Result]) -> list[Figures]:
    """What was known of each lesson when it was learned, and what came of it.

    ``{share, margin, reward, right, kept, recalls, gain}``: ``reward`` of the last step, ``gain`` the mean change of
    accuracy on the problems it was recalled for, None if it never was.
    """
    found = []
    for result in results:
        gains: dict[str, list[float]] = defaultdict(list)
        for row in result.rows:
            if row["correct"] is not None and "memory" in row["arms"] and row["notes"].get("memory"):
                arms = row["arms"]
                gains[row["notes"]["memory"]].append(arms["memory"]["correct"] - arms["zero_shot"]["correct"])
        for row in result.rows:
            lesson = row["lesson"]
            if not lesson or lesson.get("label_correct") is None or not lesson.get("rewards"):
                continue
            later = gains.get(lesson.get("memory") or "", [])
            found.append(
                {
                    "share": lesson.get("share"),
                    "margin": lesson.get("margin"),
                    "reward": float(lesson["rewards"][-1]),
                    "right": bool(lesson["label_correct"]),
                    "kept": bool(lesson["kept"]),
                    "recalls": len(later),
                    "gain": float(np.mean(later)) if later else None,
                }
            )
    return found
