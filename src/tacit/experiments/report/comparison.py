"""The report of a comparison: table.json, report.html and plots/*.png, and the table for the eye.

Builds on the cells of compare, on comparison_metrics (figures), comparison_maps (pictures) and comparison_page.
``tacit compare`` writes it at its end and ``tacit report DIR`` again at any time, from the cells alone: no model, no
data. Seeds are pooled: n counts every problem of every seed, those on which a method failed included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tacit.errors import DataError
from tacit.experiments.compare import Cell
from tacit.experiments.compare_config import ORDERS
from tacit.experiments.report import comparison_metrics
from tacit.experiments.report.cells import KINDS, Result, find, grouped, kind
from tacit.experiments.report.comparison_page import render
from tacit.experiments.report.maps import draw_all
from tacit.experiments.report.run import write_atomically


def write_comparison(out: Path, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make ``out/table.json``, ``report.html`` and ``plots/*.png`` from the cells of ``records``; returns the table.

    Rows have, accuracies and their differences in 0..1, intervals as ``X_low`` and ``X_high`` (``low`` and ``high``
    for the first value beside them):

    - ``method, data, order, kind``; ``n`` problems of all seeds, ``scored`` those with a gold answer, ``problems``
      distinct ones, ``seeds``, ``failed`` (counted as wrong), ``uses_labels``, ``offline``;
    - ``accuracy, low, high``: of one sampled answer (pass@1, estimated as avg@k with k = ``samples``); ``greedy``;
      ``majority`` (maj@k); ``pass_at_k``; ``by_seed``; ``online``: prefix and windowed accuracy by fifths;
    - ``gain``, ``greedy_gain`` over zero-shot; ``against``: of ELM's rows over each rival;
    - ``learned, sharpened, corrupted`` by the vote, ``greedy_learned, greedy_corrupted``; ``harm`` is corrupted per
      learned, None if nothing was learned;
    - ``router, retrieval, labels, votes``: None where a method has no such thing;
    - ``replay``: change on earlier problems asked again at the end (below 0: forgetting), ``replay_blocks``;
      ``transfer``: accuracy on fresh problems by data source, ``transfer_gain`` over zero-shot; None without probes;
    - ``trainable, gradient_steps, seconds, peak_memory`` and ``tokens`` = ``tokens_answer`` + ``tokens_learn`` +
      ``tokens_prepare``; probes cost nothing here.
    """
    cells = [(Cell(one["label"], one["data"], one["order"], one["seed"]), one) for one in records]
    return write(out, [Result.load(record, cell.folder(out)) for cell, record in cells])


def rewrite(out: Path) -> dict[str, Any]:
    """The same from all finished cells that lie in ``out``, in the order of the table that is there.

    Raises:
        DataError: there are no cells, or damaged ones.
    """
    try:
        held = json.loads((out / "table.json").read_text(encoding="utf-8"))["rows"]
        known = [(row["method"], row["data"], row["order"]) for row in held]
    except (OSError, ValueError, KeyError, TypeError):
        known = []  # interrupted before it was written
    methods, streams = list(dict.fromkeys(key[0] for key in known)), list(dict.fromkeys(key[1:] for key in known))

    def rank(result: Result) -> tuple[int, int, str, int, str, int]:
        record = result.record
        label, stream = record["label"], (record["data"], record["order"])
        return (
            methods.index(label) if label in methods else len(methods),
            list(KINDS).index(kind(str(record["method"]))),
            label,
            streams.index(stream) if stream in streams else len(streams),
            record["data"],
            ORDERS.index(record["order"]),
        )

    return write(out, sorted(find(out), key=rank))


def write(out: Path, results: Sequence[Result]) -> dict[str, Any]:
    """Table, page and plots of these cells, the table first; files appear whole or not at all."""
    streams = grouped(results)
    rows = [
        {**comparison_metrics.row(key, streams), "kind": kind(str(held[0].record["method"]))}
        for key, held in streams.items()
    ]
    table = {"rows": rows, "failed": [one.record["label"] for one in results if one.record["status"] == "failed"]}
    text = json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_atomically(out / "table.json", text.encode("utf-8", errors="replace"))
        pictures = draw_all(table, streams)
        (out / "plots").mkdir(exist_ok=True)
        for picture in pictures:
            write_atomically(out / "plots" / f"{picture.name}.png", picture.png)
        page = render(out, rows, streams, pictures)
        write_atomically(out / "report.html", page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"the report cannot be written to {out} ({error.strerror or error}); mend that") from error
    return table


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
            f"{100 * row[key]:+.1f} [{100 * row[key + '_low']:.1f}, {100 * row[key + '_high']:.1f}]"
            if key in row  # zero-shot may be missing from an interrupted comparison
            else ""
            for key in ("gain", "greedy_gain")
        ]
        changes = f"{row['learned']} / {row['sharpened']} / {row['corrupted']}" if "learned" in row else ""
        lines.append(
            f"| {name} | {place} | {100 * row['accuracy']:.1f} of {row['n']}{failed} | {100 * row['greedy']:.1f} "
            f"| {gains[0]} | {gains[1]} | {changes} "
            f"| {'' if row['replay'] is None else format(100 * row['replay'], '+.1f')} | {row['trainable']:,} "
            f"| {row['tokens']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
