"""The table of a comparison: table.json, and the same for the eye.

Builds on the cells of compare and on metrics. Seeds are pooled: n counts every problem of every seed, those on which
a method failed included. Intervals are 95 % bootstrap intervals over problems, gains are paired with zero-shot on the
same stream, and harm is counted: learned, sharpened and corrupted problems by the vote over the samples, and by the
greedy answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tacit.experiments import metrics
from tacit.experiments.compare import Cell, read

RESAMPLES = 2000
COUNTS = ("learned", "sharpened", "corrupted", "greedy_learned", "greedy_corrupted")
Row = dict[str, Any]


def write_comparison(out: Path, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make ``out/table.json`` from the finished cells of ``records``; returns it.

    Rows are ``{method, data, order, accuracy, low, high, greedy, n, failed, gain, gain_low, gain_high, greedy_gain,
    greedy_gain_low, greedy_gain_high, majority, learned, sharpened, corrupted, greedy_learned, greedy_corrupted,
    replay, transfer, trainable, gradient_steps, tokens, seconds, peak_memory, uses_labels}``; accuracies in 0..1,
    ``replay`` the change on earlier problems asked again at the end (below 0: forgetting), ``transfer`` the accuracy
    on fresh problems by data source, both None without probes.
    """
    streams: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        streams.setdefault((record["label"], record["data"], record["order"]), []).append(record)
    rows = [_row(out, key, held, streams.get(("zero-shot", *key[1:]), [])) for key, held in streams.items()]
    table = {"rows": rows, "failed": [record["label"] for record in records if record["status"] == "failed"]}
    temporary = out / "table.tmp"
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    temporary.replace(out / "table.json")
    return table


def _row(out: Path, key: tuple[str, str, str], records: list[dict[str, Any]], base: list[dict[str, Any]]) -> Row:
    label, data, order = key
    pairs = []
    seeds = {record["seed"]: record for record in base}
    for record in records:
        zero = {row["id"]: row for row in _rows(out, seeds[record["seed"]])}
        pairs += [(zero[row["id"]], row) for row in _rows(out, record)]
    values = np.array(
        [
            [a["correct"], b["correct"], float(a["greedy_correct"]), float(b["greedy_correct"]), b["majority_correct"]]
            for a, b in pairs
            if b["correct"] is not None
        ],
        dtype=np.float64,
    )
    figures: Row = {}
    if len(values):
        held = metrics.bootstrap_means(values, seed=0, resamples=RESAMPLES)
        sampled = _interval(values[:, 1].mean(), held[:, 1])
        gain = _interval((values[:, 1] - values[:, 0]).mean(), held[:, 1] - held[:, 0])
        greedy = _interval((values[:, 3] - values[:, 2]).mean(), held[:, 3] - held[:, 2])
        changed = metrics.changes([{"zero_shot": a, "method": b} for a, b in pairs], "method")
        figures = {
            "accuracy": sampled[0],
            "low": sampled[1],
            "high": sampled[2],
            "greedy": float(values[:, 3].mean()),
            "majority": float(values[:, 4].mean()),
            "gain": gain[0],
            "gain_low": gain[1],
            "gain_high": gain[2],
            "greedy_gain": greedy[0],
            "greedy_gain_low": greedy[1],
            "greedy_gain_high": greedy[2],
            **{
                name: changed[name]
                for name in ("learned", "sharpened", "corrupted", "greedy_learned", "greedy_corrupted")
            },
        }
    return {
        "method": label,
        "data": data,
        "order": order,
        "n": len(pairs),
        "seeds": len(records),
        "failed": sum(row["failed"] is not None for _, row in pairs),
        **figures,
        **_probed(out, records),
        "trainable": max(record.get("trainable", 0) for record in records),
        "gradient_steps": sum(record.get("gradient_steps", 0) for record in records),
        "tokens": sum(record["tokens"] for record in records),
        "seconds": sum(record["seconds"] for record in records),
        "peak_memory": max(record["peak_memory"] for record in records),
        "uses_labels": records[0]["uses_labels"],
    }


def _probed(out: Path, records: list[dict[str, Any]]) -> Row:
    differences: list[float] = []
    fresh: dict[str, list[float]] = {}
    for record in records:
        first = {row["id"]: row for row in _rows(out, record)}
        for probe in read(_folder(out, record), "probes.jsonl"):
            if probe["correct"] is None:
                continue
            if probe["kind"] == "replay":
                differences.append(probe["correct"] - first[probe["id"]]["correct"])
            else:
                fresh.setdefault(probe["data"], []).append(probe["correct"])
    return {
        "replay": float(np.mean(differences)) if differences else None,
        "transfer": {data: float(np.mean(values)) for data, values in fresh.items()} or None,
    }


def _folder(out: Path, record: dict[str, Any]) -> Path:
    return Cell(record["label"], record["data"], record["order"], record["seed"]).folder(out)


def _rows(out: Path, record: dict[str, Any]) -> list[Row]:
    return list(read(_folder(out, record), "rows.jsonl"))


def _interval(mean: float, resampled: Any) -> tuple[float, float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(mean), float(low), float(high)


def as_text(table: dict[str, Any]) -> str:
    """The table for a terminal or a Markdown page; accuracies in percent, sampled / greedy."""
    lines = [
        "| method | data | sampled | greedy | gain sampled | gain greedy | learned / sharpened / corrupted | replay "
        "| trained | tokens | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        name = row["method"] + (" (labels)" if row["uses_labels"] else "")
        place = row["data"] + ("" if row["order"] == "shuffled" else f", {row['order']}")
        if "accuracy" not in row:
            lines.append(f"| {name} | {place} | no gold answers | | | | | | | | |")
            continue
        failed = f", {row['failed']} failed" if row["failed"] else ""
        gains = [
            f"{100 * row[kind]:+.1f} [{100 * row[kind + '_low']:.1f}, {100 * row[kind + '_high']:.1f}]"
            for kind in ("gain", "greedy_gain")
        ]
        lines.append(
            f"| {name} | {place} | {100 * row['accuracy']:.1f} of {row['n']}{failed} | {100 * row['greedy']:.1f} "
            f"| {gains[0]} | {gains[1]} | {row['learned']} / {row['sharpened']} / {row['corrupted']} "
            f"| {'' if row['replay'] is None else format(100 * row['replay'], '+.1f')} | {row['trainable']:,} "
            f"| {row['tokens']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
